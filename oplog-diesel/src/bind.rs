//! Columns of a model on a database: how they are bound and read back when the log is applied.
//!
//! A model may hold a type that one backend can't store. It must still compile there, and only
//! fail, with the column named, when it is really applied to that database. A `where` clause
//! without generics that does not hold is a hard error, so whether a column can be bound is decided
//! by method resolution on a concrete type: the calls in [`bind_columns!`](crate::bind_columns)
//! go through three references and take the first implementation that fits, from "as declared in
//! the schema" over "as the type that stands for it on this database" to "not at all".

use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::deserialize::FromSql;
use diesel::query_builder::AstPass;
use diesel::result::Error;
use diesel::row::{Field as _, Row};
use diesel::serialize::ToSql;
use diesel::sql_types::HasSqlType;

use crate::Oplogged;
use crate::replay::TableName;

/// A model whose columns can be bound to statements of the database `DB` and read from its rows.
pub trait Bindable<DB: Backend + 'static>: Oplogged {
    /// Binds the column with this index in the model's definition.
    ///
    /// # Errors
    ///
    /// If the column's type can't be stored on this database.
    fn bind<'b>(&'b self, column: usize, out: AstPass<'_, 'b, DB>) -> QueryResult<()>;

    /// The name of the model's table.
    ///
    /// # Errors
    ///
    /// If the table is no plain table.
    fn table() -> QueryResult<TableName>;

    /// Reads the model from a row that holds its columns in the model's order.
    ///
    /// # Errors
    ///
    /// If a column's type can't be read on this database, or not from the stored value.
    fn read(row: &dyn RawRow<DB>) -> QueryResult<Self>;
}

/// A row of a result, without the type of the connection it came from.
pub trait RawRow<DB: Backend + 'static> {
    /// Hands the raw value of a column to `f`, `None` for `NULL`.
    ///
    /// # Errors
    ///
    /// If there is no such column.
    fn with_value(
        &self,
        column: usize,
        f: &mut dyn FnMut(Option<DB::RawValue<'_>>),
    ) -> QueryResult<()>;
}

/// A row of Diesel's as a [`RawRow`].
pub(crate) struct DieselRow<'r, R>(pub(crate) R, pub(crate) PhantomData<&'r ()>);

impl<'r, R, DB> RawRow<DB> for DieselRow<'r, R>
where
    DB: Backend + 'static,
    R: Row<'r, DB>,
{
    fn with_value(
        &self,
        column: usize,
        f: &mut dyn FnMut(Option<DB::RawValue<'_>>),
    ) -> QueryResult<()> {
        let field = self
            .0
            .get(column)
            .ok_or_else(|| Error::DeserializationError("the row has too few columns".into()))?;
        f(field.value());
        Ok(())
    }
}

/// A SQL type that goes by another name on the database `DB`.
pub trait StandsFor<DB> {
    /// The SQL type that holds the same values there.
    type SqlType;
}

#[cfg(all(feature = "sqlite", feature = "postgres_backend"))]
mod sqlite {
    use super::StandsFor;
    use diesel::sql_types::{Nullable, Timestamptz, TimestamptzSqlite};
    use diesel::sqlite::Sqlite;

    #[cfg(feature = "postgres_backend")]
    impl StandsFor<Sqlite> for Timestamptz {
        type SqlType = TimestamptzSqlite;
    }
    #[cfg(feature = "postgres_backend")]
    impl StandsFor<Sqlite> for Nullable<Timestamptz> {
        type SqlType = Nullable<TimestamptzSqlite>;
    }
    #[cfg(feature = "postgres_backend")]
    impl StandsFor<diesel::pg::Pg> for TimestamptzSqlite {
        type SqlType = Timestamptz;
    }
    #[cfg(feature = "postgres_backend")]
    impl StandsFor<diesel::pg::Pg> for Nullable<TimestamptzSqlite> {
        type SqlType = Nullable<Timestamptz>;
    }
}

/// A column of Rust type `T` and SQL type `ST` on the database `DB`.
pub struct Probe<T, ST, DB>(&'static str, PhantomData<Types<T, ST, DB>>);

type Types<T, ST, DB> = fn() -> (T, ST, DB);

impl<T, ST, DB> Probe<T, ST, DB> {
    /// The column with this SQL name.
    pub const fn new(column: &'static str) -> Self {
        Probe(column, PhantomData)
    }
}

/// The same two calls under three names, one for each way to answer them.
macro_rules! ways {
    ($($(#[$doc:meta])* $way:ident)*) => {$(
        $(#[$doc])*
        pub trait $way<T, DB: Backend + 'static> {
            /// Binds the column.
            ///
            /// # Errors
            ///
            /// If its type can't be stored on this database.
            fn bind<'b>(&self, value: &'b T, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>;
            /// Reads the column.
            ///
            /// # Errors
            ///
            /// If its type can't be read on this database, or not from the stored value.
            fn read(&self, row: &dyn RawRow<DB>, column: usize) -> QueryResult<T>;
        }
    )*};
}

ways! {
    /// The column can be bound and read as the schema declares it.
    AsDeclared
    /// The column can be bound and read as the type that stands for the declared one.
    AsStandIn
    /// The column can't be bound on this database.
    NotAtAll
}

impl<T, ST, DB> AsDeclared<T, DB> for &&Probe<T, ST, DB>
where
    DB: Backend + HasSqlType<ST> + 'static,
    T: ToSql<ST, DB> + FromSql<ST, DB>,
{
    fn bind<'b>(&self, value: &'b T, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_bind_param::<ST, T>(value)
    }
    fn read(&self, row: &dyn RawRow<DB>, column: usize) -> QueryResult<T> {
        read::<T, ST, DB>(row, column)
    }
}

impl<T, ST, DB> AsStandIn<T, DB> for &Probe<T, ST, DB>
where
    ST: StandsFor<DB>,
    DB: Backend + HasSqlType<ST::SqlType> + 'static,
    T: ToSql<ST::SqlType, DB> + FromSql<ST::SqlType, DB>,
{
    fn bind<'b>(&self, value: &'b T, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_bind_param::<ST::SqlType, T>(value)
    }
    fn read(&self, row: &dyn RawRow<DB>, column: usize) -> QueryResult<T> {
        read::<T, ST::SqlType, DB>(row, column)
    }
}

impl<T, ST, DB: Backend + 'static> NotAtAll<T, DB> for Probe<T, ST, DB> {
    fn bind<'b>(&self, _: &'b T, _: &mut AstPass<'_, 'b, DB>) -> QueryResult<()> {
        Err(unsupported(self.0))
    }
    fn read(&self, _: &dyn RawRow<DB>, _: usize) -> QueryResult<T> {
        Err(unsupported(self.0))
    }
}

/// A column whose type can't be stored on a database.
#[derive(Debug, thiserror::Error)]
#[error("the type of the column `{column}` can't be stored on this database")]
pub(crate) struct UnsupportedColumn {
    pub column: &'static str,
}

fn unsupported(column: &'static str) -> Error {
    Error::SerializationError(Box::new(UnsupportedColumn { column }))
}

pub(crate) fn read<T, ST, DB>(row: &dyn RawRow<DB>, column: usize) -> QueryResult<T>
where
    DB: Backend + 'static,
    T: FromSql<ST, DB>,
{
    let mut read = None;
    row.with_value(column, &mut |value| {
        read = Some(T::from_nullable_sql(value));
    })?;
    match read {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(Error::DeserializationError(error)),
        None => Err(Error::DeserializationError("the row was not read".into())),
    }
}

/// Binds the columns of a model on every backend whose feature is on. Written by the derive.
#[doc(hidden)]
#[macro_export]
macro_rules! bind_columns {
    ($model:ident { $($index:literal $field:tt: $ty:ty => $column:ty,)* }) => {
        $crate::__bind_sqlite! { $model { $($index $field: $ty => $column,)* } }
        $crate::__bind_postgres! { $model { $($index $field: $ty => $column,)* } }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __bind_on {
    ($db:ty, $model:ident { $($index:literal $field:tt: $ty:ty => $column:ty,)* }) => {
        #[automatically_derived]
        impl $crate::__private::Bindable<$db> for $model {
            // Parameters begin with `__`: `use schema::table::dsl::*` brings in unit structs that are
            // named like columns, and a parameter can't shadow one.
            fn bind<'b>(
                &'b self,
                __column: ::core::primitive::usize,
                mut __out: $crate::__private::diesel::query_builder::AstPass<'_, 'b, $db>,
            ) -> $crate::__private::diesel::QueryResult<()> {
                #[allow(unused_imports)]
                use $crate::__private::{AsDeclared as _, AsStandIn as _, NotAtAll as _};
                match __column {
                    $($index => (&&&$crate::__private::Probe::<
                        $ty,
                        $crate::__private::diesel::dsl::SqlTypeOf<$column>,
                        $db,
                    >::new(
                        <$column as $crate::__private::diesel::query_source::Column>::NAME,
                    ))
                        .bind(&self.$field, &mut __out),)*
                    _ => $crate::__private::no_column(__column),
                }
            }
            fn table() -> $crate::__private::diesel::QueryResult<$crate::__private::TableName> {
                $crate::__private::table_of::<Self, $db>()
            }
            fn read(
                __row: &dyn $crate::__private::RawRow<$db>,
            ) -> $crate::__private::diesel::QueryResult<Self> {
                #[allow(unused_imports)]
                use $crate::__private::{AsDeclared as _, AsStandIn as _, NotAtAll as _};
                ::core::result::Result::Ok(Self {
                    $($field: (&&&$crate::__private::Probe::<
                        $ty,
                        $crate::__private::diesel::dsl::SqlTypeOf<$column>,
                        $db,
                    >::new(
                        <$column as $crate::__private::diesel::query_source::Column>::NAME,
                    ))
                        .read(__row, $index)?,)*
                })
            }
        }
    };
}

#[cfg(feature = "sqlite")]
#[doc(hidden)]
#[macro_export]
macro_rules! __bind_sqlite {
    ($($columns:tt)*) => {
        $crate::__bind_on! { $crate::__private::diesel::sqlite::Sqlite, $($columns)* }
    };
}

#[cfg(not(feature = "sqlite"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __bind_sqlite {
    ($($columns:tt)*) => {};
}

#[cfg(feature = "postgres_backend")]
#[doc(hidden)]
#[macro_export]
macro_rules! __bind_postgres {
    ($($columns:tt)*) => {
        $crate::__bind_on! { $crate::__private::diesel::pg::Pg, $($columns)* }
    };
}

#[cfg(not(feature = "postgres_backend"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __bind_postgres {
    ($($columns:tt)*) => {};
}
