//! The derives beside types and columns that take the names generated code could stumble over, and
//! under lints that a careful crate has on.

#![deny(warnings)]
#![deny(clippy::all, clippy::pedantic, clippy::unwrap_used)]
#![deny(
    deprecated,
    missing_docs,
    unused,
    unused_qualifications,
    unreachable_pub,
    unused_results
)]
#![deny(
    single_use_lifetimes,
    elided_lifetimes_in_paths,
    trivial_casts,
    variant_size_differences
)]
#![forbid(unsafe_code)]

/// A schema whose columns have the names of parameters and keywords.
pub mod schema {
    diesel::table! {
        /// Things.
        things (id) {
            /// The key.
            id -> BigInt,
            /// As a parameter.
            column -> BigInt,
            /// As a parameter.
            row -> Text,
            /// As a parameter.
            value -> Nullable<Text>,
            /// As a parameter.
            out -> Bool,
            /// As a binding.
            f -> Float,
            /// As a method.
            bind -> Double,
            /// As a type.
            result -> Integer,
            /// As a keyword.
            #[sql_name = "match"]
            r#match -> SmallInt,
            /// As an error.
            error -> Text,
        }
    }
}

/// Everything the prelude has, with another meaning.
pub mod shadows {
    #![allow(missing_docs, dead_code, non_camel_case_types)]
    pub struct Result;
    pub struct Option;
    pub struct Some;
    pub struct None;
    pub struct Ok;
    pub struct Err;
    pub struct Vec;
    pub struct String;
    pub struct Box;
    pub struct Cow;
    pub struct Value;
    pub struct Kind;
    pub struct usize;
    pub struct bool;
    pub struct u32;
    pub struct str;
    pub trait Default {}
    pub trait Into {}
    pub trait From {}
    pub trait Clone {}
    pub trait Sized {}
    pub trait Iterator {}
    pub mod core {}
    pub mod std {}
    pub mod alloc {}
    pub mod diesel {}
    pub mod oplog_diesel {}
}

/// A model among them.
pub mod models {
    #[allow(unused_imports)]
    use super::schema::things::{self, dsl::*};
    #[allow(unused_imports)]
    use super::shadows::*;

    /// A newtype.
    #[derive(::oplog_diesel::OplogValue, Debug, PartialEq)]
    pub struct Name(pub ::std::string::String);

    /// An enum whose variants have names of the prelude.
    #[derive(::oplog_diesel::OplogValue, Debug, PartialEq)]
    pub enum Outcome {
        /// As in `Result`.
        #[oplog(label = "ok")]
        Ok,
        /// As in `Result`.
        #[oplog(label = "err")]
        Err,
        /// As in `Option`.
        #[oplog(label = "none")]
        None,
    }

    impl Outcome {
        /// Not the one of `OplogValue`.
        pub const KIND: i64 = 5;
    }

    /// A model.
    #[derive(::oplog_diesel::Oplogged, Debug, PartialEq)]
    #[diesel(table_name = things)]
    #[oplog(type_name = "thing", aggregate = "thing", root = column)]
    pub struct Thing {
        /// The key.
        #[oplog(tag = 1)]
        pub id: i64,
        /// A parameter.
        #[oplog(tag = 2)]
        pub column: i64,
        /// A parameter.
        #[oplog(tag = 3, default = Name(::std::string::String::new()))]
        pub row: Name,
        /// A parameter.
        #[oplog(tag = 4, default)]
        pub value: ::std::option::Option<Name>,
        /// A parameter.
        #[oplog(tag = 5)]
        #[deprecated]
        pub out: ::std::primitive::bool,
        /// A binding.
        #[oplog(tag = 6, default = (1.0))]
        pub f: f32,
        /// A method.
        #[oplog(tag = 7)]
        pub bind: f64,
        /// A type.
        #[oplog(tag = 8)]
        pub result: i32,
        /// A keyword.
        #[oplog(tag = 9)]
        pub r#match: i16,
        /// An enum.
        #[oplog(tag = 10)]
        pub error: Outcome,
    }
}

#[test]
fn generated_code_means_what_it_says() {
    use oplog_diesel::core::LogRow as _;
    use oplog_diesel::{OplogValue as _, Oplogged as _, Value};
    #[allow(deprecated)]
    let thing = models::Thing {
        id: 1,
        column: 2,
        row: models::Name("x".into()),
        value: None,
        out: true,
        f: 1.5,
        bind: 2.5,
        result: 3,
        r#match: 4,
        error: models::Outcome::None,
    };
    assert_eq!(thing.aggregate().to_string(), "thing:2");
    assert_eq!(thing.value(8), Value::Sint(4));
    assert_eq!(models::Thing::DEF.columns[8].name, "match");
    assert_eq!(thing.value(9), Value::Text("none".into()));
    assert_eq!(
        models::Outcome::from_value(Value::Text("ok".into())),
        Ok(models::Outcome::Ok)
    );
}
