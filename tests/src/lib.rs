//! What the tests of all backends share: the tables, their models, and fresh databases.

pub mod behind;
pub mod faulty;
pub mod models;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "postgres")]
pub mod proxy;
pub mod schema;
#[cfg(feature = "postgres")]
pub mod server;
#[cfg(feature = "sqlite")]
pub mod sqlite;
