#[allow(deprecated, unused_qualifications, clippy::absolute_paths)]
const _: () = {
    #[automatically_derived]
    impl ::oplog_diesel::__private::LogRow for Account {
        const DEF: &'static ::oplog_diesel::__private::TypeDef = &::oplog_diesel::__private::TypeDef {
            type_name: "account",
            rust_name: ::core::concat!(::core::module_path!(), "::Account"),
            type_id: ::core::any::TypeId::of::<Self>,
            aggregate: "account",
            root: ::core::option::Option::Some(0),
            columns: &[
                ::oplog_diesel::__private::ColumnDef {
                    tag: 1,
                    name: <accounts::id as ::oplog_diesel::__private::diesel::query_source::Column>::NAME,
                    kind: <i64 as ::oplog_diesel::__private::OplogValue>::KIND,
                    nullable: <i64 as ::oplog_diesel::__private::OplogValue>::NULLABLE,
                    key: true,
                },
                ::oplog_diesel::__private::ColumnDef {
                    tag: 2,
                    name: <accounts::owner as ::oplog_diesel::__private::diesel::query_source::Column>::NAME,
                    kind: <String as ::oplog_diesel::__private::OplogValue>::KIND,
                    nullable: <String as ::oplog_diesel::__private::OplogValue>::NULLABLE,
                    key: false,
                },
                ::oplog_diesel::__private::ColumnDef {
                    tag: 3,
                    name: <accounts::balance as ::oplog_diesel::__private::diesel::query_source::Column>::NAME,
                    kind: <i64 as ::oplog_diesel::__private::OplogValue>::KIND,
                    nullable: <i64 as ::oplog_diesel::__private::OplogValue>::NULLABLE,
                    key: false,
                },
                ::oplog_diesel::__private::ColumnDef {
                    tag: 4,
                    name: <accounts::email as ::oplog_diesel::__private::diesel::query_source::Column>::NAME,
                    kind: <Option<
                        String,
                    > as ::oplog_diesel::__private::OplogValue>::KIND,
                    nullable: <Option<
                        String,
                    > as ::oplog_diesel::__private::OplogValue>::NULLABLE,
                    key: false,
                },
            ],
            reserved: &[],
            partial: false,
            lock_first: false,
        };
        fn value(
            &self,
            __column: ::core::primitive::usize,
        ) -> ::oplog_diesel::__private::Value<'_> {
            match __column {
                0 => <i64 as ::oplog_diesel::__private::OplogValue>::to_value(&self.id),
                1 => {
                    <String as ::oplog_diesel::__private::OplogValue>::to_value(
                        &self.owner,
                    )
                }
                2 => {
                    <i64 as ::oplog_diesel::__private::OplogValue>::to_value(
                        &self.balance,
                    )
                }
                3 => {
                    <Option<
                        String,
                    > as ::oplog_diesel::__private::OplogValue>::to_value(&self.email)
                }
                _ => ::oplog_diesel::__private::no_column(__column),
            }
        }
        fn from_row(
            __row: &::oplog_diesel::__private::RowValues<'_>,
        ) -> ::core::result::Result<Self, ::oplog_diesel::__private::RowError> {
            ::core::result::Result::Ok(Self {
                id: __row.take::<i64>(0)?,
                owner: __row.take::<String>(1)?,
                balance: __row.take_or(2, || -> i64 { 0 })?,
                email: __row.take::<Option<String>>(3)?,
            })
        }
    }
    #[automatically_derived]
    impl ::oplog_diesel::__private::Oplogged for Account {
        type Table = accounts::table;
        type Columns = (
            accounts::id,
            accounts::owner,
            accounts::balance,
            accounts::email,
        );
        fn columns() -> Self::Columns {
            (
                <accounts::id as ::core::default::Default>::default(),
                <accounts::owner as ::core::default::Default>::default(),
                <accounts::balance as ::core::default::Default>::default(),
                <accounts::email as ::core::default::Default>::default(),
            )
        }
    }
    ::oplog_diesel::__private::bind_columns! {
        Account { 0 id : i64 => accounts::id, 1 owner : String => accounts::owner, 2
        balance : i64 => accounts::balance, 3 email : Option < String > =>
        accounts::email, }
    }
    #[automatically_derived]
    impl ::oplog_diesel::__private::Covers<accounts::id> for Account {}
    #[automatically_derived]
    impl ::oplog_diesel::__private::Covers<accounts::owner> for Account {}
    #[automatically_derived]
    impl ::oplog_diesel::__private::Covers<accounts::balance> for Account {}
    #[automatically_derived]
    impl ::oplog_diesel::__private::Covers<accounts::email> for Account {}
    trait __Covered {
        const PROOF: () = ();
    }
    impl<__Columns> __Covered for __Columns
    where
        Account: ::oplog_diesel::__private::CoversAll<__Columns>,
    {}
    const _: () = <<accounts::table as ::oplog_diesel::__private::diesel::query_source::Table>::AllColumns as __Covered>::PROOF;
    const _: () = {
        ::core::assert!(
            ! < i64 as ::oplog_diesel::__private::OplogValue > ::NULLABLE,
            "`id` can't be the root of an aggregate: a root is never NULL, so its type is no `Option`"
        );
        ::core::assert!(
            < i64 as ::oplog_diesel::__private::OplogValue > ::ROOT,
            "`id` can't be the root of an aggregate: a root is an integer, a `String`, a `bool` or a newtype of these"
        );
    };
    ::oplog_diesel::__private::submit! {
        Account
    }
};
