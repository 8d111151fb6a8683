//! From one kind of database to the other.
