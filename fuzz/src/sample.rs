//! A model with a column of every kind, as the derive would write it.

use std::any::TypeId;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use oplog_core::{ColumnDef, Kind, LogRow, OplogValue, RowError, RowValues, TypeDef, Value};

/// The largest tag of protobuf.
pub const TAG_MAX: u32 = (1 << 29) - 1;

/// A row with a column of every kind. Its fields stand in another order than its tags.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it all")]
pub struct Sample {
    pub text: String,
    pub id: i32,
    pub flag: bool,
    pub count: u64,
    pub single: f32,
    pub double: Option<f64>,
    pub blob: Option<Vec<u8>>,
    pub day: Option<NaiveDate>,
    pub time: Option<NaiveTime>,
    pub moment: NaiveDateTime,
    pub note: Option<String>,
}

const fn column(tag: u32, name: &'static str, kind: Kind, nullable: bool) -> ColumnDef {
    ColumnDef {
        tag,
        name,
        kind,
        nullable,
        key: tag == 1,
    }
}

/// What [`Sample`] looks like in the log.
pub static SAMPLE: TypeDef = TypeDef {
    type_name: "sample",
    rust_name: "oplog_fuzz::Sample",
    type_id: TypeId::of::<Sample>,
    aggregate: "sample",
    root: None,
    columns: &[
        column(2, "text", Kind::Text, false),
        column(1, "id", Kind::Sint, false),
        column(3, "flag", Kind::Bool, false),
        column(5, "count", Kind::Uint, false),
        column(6, "single", Kind::F32, false),
        column(7, "double", Kind::F64, true),
        column(8, "blob", Kind::Bytes, true),
        column(9, "day", Kind::Date, true),
        column(10, "time", Kind::Time, true),
        column(300, "moment", Kind::Timestamp, false),
        column(TAG_MAX, "note", Kind::Text, true),
    ],
    reserved: &[4, 11],
    partial: false,
    lock_first: false,
};

impl LogRow for Sample {
    const DEF: &'static TypeDef = &SAMPLE;

    fn value(&self, column: usize) -> Value<'_> {
        match column {
            0 => self.text.to_value(),
            1 => self.id.to_value(),
            2 => self.flag.to_value(),
            3 => self.count.to_value(),
            4 => self.single.to_value(),
            5 => self.double.to_value(),
            6 => self.blob.to_value(),
            7 => self.day.to_value(),
            8 => self.time.to_value(),
            9 => self.moment.to_value(),
            10 => self.note.to_value(),
            _ => panic!("no column {column}"),
        }
    }

    fn from_row(row: &RowValues<'_>) -> Result<Self, RowError> {
        Ok(Self {
            text: row.take(0)?,
            id: row.take(1)?,
            flag: row.take_or(2, || true)?,
            count: row.take(3)?,
            single: row.take(4)?,
            double: row.take(5)?,
            blob: row.take(6)?,
            day: row.take(7)?,
            time: row.take(8)?,
            moment: row.take(9)?,
            note: row.take(10)?,
        })
    }
}
