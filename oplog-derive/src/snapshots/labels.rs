#[allow(deprecated, unused_qualifications, clippy::absolute_paths)]
const _: () = {
    #[automatically_derived]
    impl ::log::__private::OplogValue for State {
        const KIND: ::log::__private::Kind = ::log::__private::Kind::Text;
        fn to_value(&self) -> ::log::__private::Value<'_> {
            ::log::__private::Value::Text(
                ::std::borrow::Cow::Borrowed(
                    match self {
                        Self::Active => "active",
                        Self::Closed => "closed",
                    },
                ),
            )
        }
        fn from_value(
            __value: ::log::__private::Value<'_>,
        ) -> ::core::result::Result<Self, ::log::__private::ValueError> {
            match __value {
                ::log::__private::Value::Text(__text) => {
                    match &*__text {
                        "active" => ::core::result::Result::Ok(Self::Active),
                        "closed" => ::core::result::Result::Ok(Self::Closed),
                        _ => {
                            ::core::result::Result::Err(::log::__private::ValueError::Label {
                                type_name: "State",
                            })
                        }
                    }
                }
                __other => {
                    ::core::result::Result::Err(
                        ::log::__private::Value::mismatch(
                            &__other,
                            ::log::__private::Kind::Text,
                        ),
                    )
                }
            }
        }
    }
};
