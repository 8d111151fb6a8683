#[allow(deprecated, unused_qualifications, clippy::absolute_paths)]
const _: () = {
    #[automatically_derived]
    impl ::oplog_diesel::__private::OplogValue for Email {
        const KIND: ::oplog_diesel::__private::Kind = <String as ::oplog_diesel::__private::OplogValue>::KIND;
        const NULLABLE: ::core::primitive::bool = <String as ::oplog_diesel::__private::OplogValue>::NULLABLE;
        const ROOT: ::core::primitive::bool = <String as ::oplog_diesel::__private::OplogValue>::ROOT;
        fn to_value(&self) -> ::oplog_diesel::__private::Value<'_> {
            <String as ::oplog_diesel::__private::OplogValue>::to_value(&self.0)
        }
        fn from_value(
            __value: ::oplog_diesel::__private::Value<'_>,
        ) -> ::core::result::Result<Self, ::oplog_diesel::__private::ValueError> {
            match <String as ::oplog_diesel::__private::OplogValue>::from_value(
                __value,
            ) {
                ::core::result::Result::Ok(__inner) => {
                    ::core::result::Result::Ok(Self { 0: __inner })
                }
                ::core::result::Result::Err(__error) => {
                    ::core::result::Result::Err(__error)
                }
            }
        }
    }
};
