#[allow(deprecated, unused_qualifications, clippy::absolute_paths)]
const _: () = {
    #[automatically_derived]
    impl crate::log::__private::LogRow for Member {
        const DEF: &'static crate::log::__private::TypeDef = &crate::log::__private::TypeDef {
            type_name: "member",
            rust_name: ::core::concat!(::core::module_path!(), "::Member"),
            type_id: ::core::any::TypeId::of::<Self>,
            aggregate: "team",
            root: ::core::option::Option::Some(0),
            columns: &[
                crate::log::__private::ColumnDef {
                    tag: 1,
                    name: <crate::schema::members::team_id as crate::log::__private::diesel::query_source::Column>::NAME,
                    kind: <TeamId as crate::log::__private::OplogValue>::KIND,
                    nullable: <TeamId as crate::log::__private::OplogValue>::NULLABLE,
                    key: true,
                },
                crate::log::__private::ColumnDef {
                    tag: 16,
                    name: <crate::schema::members::r#type as crate::log::__private::diesel::query_source::Column>::NAME,
                    kind: <Kind as crate::log::__private::OplogValue>::KIND,
                    nullable: <Kind as crate::log::__private::OplogValue>::NULLABLE,
                    key: true,
                },
            ],
            reserved: &[2, 4],
            partial: false,
            lock_first: true,
        };
        fn value(
            &self,
            __column: ::core::primitive::usize,
        ) -> crate::log::__private::Value<'_> {
            match __column {
                0 => <TeamId as crate::log::__private::OplogValue>::to_value(&self.0),
                1 => <Kind as crate::log::__private::OplogValue>::to_value(&self.1),
                _ => crate::log::__private::no_column(__column),
            }
        }
        fn from_row(
            __row: &crate::log::__private::RowValues<'_>,
        ) -> ::core::result::Result<Self, crate::log::__private::RowError> {
            ::core::result::Result::Ok(Self {
                0: __row.take::<TeamId>(0)?,
                1: __row.take_or(1, || <Kind as ::core::default::Default>::default())?,
            })
        }
    }
    #[automatically_derived]
    impl crate::log::__private::Oplogged for Member {
        type Table = crate::schema::members::table;
        type Columns = (crate::schema::members::team_id, crate::schema::members::r#type);
        const TRIGGERS: crate::log::__private::Triggers = crate::log::__private::Triggers::Reread;
        const CASCADE: crate::log::__private::Cascade = crate::log::__private::Cascade::Log;
        fn columns() -> Self::Columns {
            (
                <crate::schema::members::team_id as ::core::default::Default>::default(),
                <crate::schema::members::r#type as ::core::default::Default>::default(),
            )
        }
    }
    crate::log::__private::bind_columns! {
        Member { 0 0 : TeamId => crate ::schema::members::team_id, 1 1 : Kind => crate
        ::schema::members::r#type, }
    }
    #[automatically_derived]
    impl crate::log::__private::Covers<crate::schema::members::team_id> for Member {}
    #[automatically_derived]
    impl crate::log::__private::Covers<crate::schema::members::r#type> for Member {}
    #[automatically_derived]
    impl crate::log::__private::Covers<crate::schema::members::updated_at> for Member {}
    #[automatically_derived]
    impl crate::log::__private::Covers<crate::schema::members::r#match> for Member {}
    trait __Covered {
        const PROOF: () = ();
    }
    impl<__Columns> __Covered for __Columns
    where
        Member: crate::log::__private::CoversAll<__Columns>,
    {}
    const _: () = <<crate::schema::members::table as crate::log::__private::diesel::query_source::Table>::AllColumns as __Covered>::PROOF;
    const _: () = {
        ::core::assert!(
            ! < TeamId as crate ::log::__private::OplogValue > ::NULLABLE,
            "`0` can't be the root of an aggregate: a root is never NULL, so its type is no `Option`"
        );
        ::core::assert!(
            < TeamId as crate ::log::__private::OplogValue > ::ROOT,
            "`0` can't be the root of an aggregate: a root is an integer, a `String`, a `bool` or a newtype of these"
        );
    };
    crate::log::__private::submit! {
        Member
    }
};
