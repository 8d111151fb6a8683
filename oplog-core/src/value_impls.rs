use std::borrow::Cow;

use crate::{Kind, OplogValue, Value, ValueError};

macro_rules! integers {
    ($($type:ty => $kind:ident,)*) => {$(
        impl OplogValue for $type {
            const KIND: Kind = Kind::$kind;
            const ROOT: bool = true;

            fn to_value(&self) -> Value<'_> {
                Value::$kind((*self).into())
            }

            fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
                match value {
                    Value::$kind(number) => number.try_into().map_err(|_| ValueError::Range {
                        type_name: stringify!($type),
                    }),
                    other => Err(other.mismatch(Self::KIND)),
                }
            }
        }
    )*};
}

integers! {
    i8 => Sint,
    i16 => Sint,
    i32 => Sint,
    u8 => Uint,
    u16 => Uint,
    u32 => Uint,
}

// The widest need no conversion, which clippy would reject in the macro.
macro_rules! plain {
    ($($type:ty => $kind:ident, root $root:literal, $from:path, $to:path;)*) => {$(
        impl OplogValue for $type {
            const KIND: Kind = Kind::$kind;
            const ROOT: bool = $root;

            fn to_value(&self) -> Value<'_> {
                Value::$kind($to(*self))
            }

            fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
                match value {
                    Value::$kind(content) => Ok($from(content)),
                    other => Err(other.mismatch(Self::KIND)),
                }
            }
        }
    )*};
}

plain! {
    bool => Bool, root true, std::convert::identity, std::convert::identity;
    i64 => Sint, root true, std::convert::identity, std::convert::identity;
    u64 => Uint, root true, std::convert::identity, std::convert::identity;
    f32 => F32, root false, f32::from_bits, f32::to_bits;
    f64 => F64, root false, f64::from_bits, f64::to_bits;
}

impl OplogValue for String {
    const KIND: Kind = Kind::Text;
    const ROOT: bool = true;

    fn to_value(&self) -> Value<'_> {
        Value::Text(Cow::Borrowed(self))
    }

    fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
        match value {
            Value::Text(text) => Ok(text.into_owned()),
            other => Err(other.mismatch(Self::KIND)),
        }
    }
}

impl OplogValue for Vec<u8> {
    const KIND: Kind = Kind::Bytes;

    fn to_value(&self) -> Value<'_> {
        Value::Bytes(Cow::Borrowed(self))
    }

    fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
        match value {
            Value::Bytes(bytes) => Ok(bytes.into_owned()),
            other => Err(other.mismatch(Self::KIND)),
        }
    }
}

impl<T: OplogValue> OplogValue for Option<T> {
    const KIND: Kind = T::KIND;
    const NULLABLE: bool = true;

    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::to_value)
    }

    fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// chrono's types. A date or time with an offset other than UTC is left out: the offset would be
/// lost, so it would not come back as it was.
#[cfg(feature = "chrono")]
mod chrono_impls {
    use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};

    use super::{Kind, OplogValue, Value, ValueError};
    use crate::value::{DAY_NANOS, split_time};

    /// Days from 0000-12-31, where chrono counts from, to 1970-01-01.
    const EPOCH_DAYS: i64 = 719_163;

    impl OplogValue for NaiveDate {
        const KIND: Kind = Kind::Date;

        fn to_value(&self) -> Value<'_> {
            Value::Date(i64::from(self.num_days_from_ce()) - EPOCH_DAYS)
        }

        fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
            match value {
                Value::Date(days) => days
                    .checked_add(EPOCH_DAYS)
                    .and_then(|days| i32::try_from(days).ok())
                    .and_then(NaiveDate::from_num_days_from_ce_opt)
                    .ok_or(ValueError::Range {
                        type_name: "NaiveDate",
                    }),
                other => Err(other.mismatch(Self::KIND)),
            }
        }
    }

    impl OplogValue for NaiveTime {
        const KIND: Kind = Kind::Time;

        fn to_value(&self) -> Value<'_> {
            let seconds = u64::from(self.num_seconds_from_midnight());
            let nanos = u64::from(self.nanosecond());
            // chrono lets the nanoseconds of a leap second count on from the second before.
            let leap = nanos / 1_000_000_000;
            Value::Time(leap * DAY_NANOS + seconds * 1_000_000_000 + nanos % 1_000_000_000)
        }

        fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
            match value {
                Value::Time(nanos) if nanos < 2 * DAY_NANOS => {
                    let (seconds, nanos) = split_time(nanos);
                    u32::try_from(seconds).ok().and_then(|seconds| {
                        NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)
                    })
                }
                Value::Time(_) => None,
                other => return Err(other.mismatch(Self::KIND)),
            }
            .ok_or(ValueError::Range {
                type_name: "NaiveTime",
            })
        }
    }

    impl OplogValue for NaiveDateTime {
        const KIND: Kind = Kind::Timestamp;

        fn to_value(&self) -> Value<'_> {
            moment(&self.and_utc())
        }

        fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
            from_moment(value, "NaiveDateTime").map(|moment| moment.naive_utc())
        }
    }

    impl OplogValue for DateTime<Utc> {
        const KIND: Kind = Kind::Timestamp;

        fn to_value(&self) -> Value<'_> {
            moment(self)
        }

        fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
            from_moment(value, "DateTime<Utc>")
        }
    }

    fn moment(moment: &DateTime<Utc>) -> Value<'static> {
        Value::Timestamp {
            seconds: moment.timestamp(),
            nanos: moment.timestamp_subsec_nanos(),
        }
    }

    fn from_moment(value: Value<'_>, type_name: &'static str) -> Result<DateTime<Utc>, ValueError> {
        match value {
            Value::Timestamp { seconds, nanos } => {
                DateTime::from_timestamp(seconds, nanos).ok_or(ValueError::Range { type_name })
            }
            other => Err(other.mismatch(Kind::Timestamp)),
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]

        use proptest::prelude::*;

        use super::super::tests::check;
        use super::*;

        fn time(hour: u32, minute: u32, second: u32, nanos: u32) -> NaiveTime {
            NaiveTime::from_hms_nano_opt(hour, minute, second, nanos).unwrap()
        }

        #[test]
        fn dates() {
            check(&NaiveDate::default(), &Value::Date(0));
            let (day, number) = (NaiveDate::from_ymd_opt(2024, 2, 29).unwrap(), 19_782);
            check(&day, &Value::Date(number));
            assert_eq!(Value::Date(number).to_string(), day.to_string());
            for extreme in [NaiveDate::MIN, NaiveDate::MAX] {
                check(&extreme, &extreme.to_value());
            }
            for days in [i64::MIN, i64::MAX, i64::from(i32::MAX)] {
                let error = NaiveDate::from_value(Value::Date(days)).unwrap_err();
                assert!(matches!(error, ValueError::Range { .. }));
            }
        }

        #[test]
        fn times() {
            check(&NaiveTime::MIN, &Value::Time(0));
            check(&time(0, 0, 1, 2), &Value::Time(1_000_000_002));
            check(&time(23, 59, 59, 999_999_999), &Value::Time(DAY_NANOS - 1));
            // A leap second differs from the second after it.
            check(&time(10, 31, 0, 5), &Value::Time(37_860_000_000_005));
            check(
                &time(10, 30, 59, 1_000_000_005),
                &Value::Time(DAY_NANOS + 37_859_000_000_005),
            );
            check(
                &time(23, 59, 59, 1_999_999_999),
                &Value::Time(2 * DAY_NANOS - 1),
            );
            for nanos in [DAY_NANOS, 2 * DAY_NANOS, u64::MAX] {
                let error = NaiveTime::from_value(Value::Time(nanos)).unwrap_err();
                assert!(matches!(error, ValueError::Range { .. }), "{nanos}");
            }
        }

        #[test]
        fn timestamps() {
            let moment = |seconds, nanos| Value::Timestamp { seconds, nanos };
            check(&NaiveDateTime::default(), &moment(0, 0));
            check(&DateTime::<Utc>::default(), &moment(0, 0));
            let before = DateTime::from_timestamp(-1, 999_999_999).unwrap();
            check(&before, &moment(-1, 999_999_999));
            let leap = DateTime::from_timestamp(1_483_228_799, 1_500_000_000).unwrap();
            check(&leap, &moment(1_483_228_799, 1_500_000_000));
            check(&leap.naive_utc(), &moment(1_483_228_799, 1_500_000_000));
            for extreme in [NaiveDateTime::MIN, NaiveDateTime::MAX] {
                check(&extreme, &extreme.to_value());
            }
            for (seconds, nanos) in [(i64::MAX, 0), (0, 1_500_000_000), (59, 2_000_000_000)] {
                let error = NaiveDateTime::from_value(moment(seconds, nanos)).unwrap_err();
                assert!(matches!(error, ValueError::Range { .. }));
            }
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(128))]

            #[test]
            fn every_time_round_trips(seconds in 0u32..86_400, nanos in 0u32..2_000_000_000) {
                if let Some(time) = NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos) {
                    prop_assert_eq!(NaiveTime::from_value(time.to_value()), Ok(time));
                }
            }

            #[test]
            fn what_decodes_encodes_the_same(number: u64, seconds: i64, nanos in 0u32..2_000_000_000) {
                let number = number % (2 * DAY_NANOS);
                if let Ok(time) = NaiveTime::from_value(Value::Time(number)) {
                    prop_assert_eq!(time.to_value(), Value::Time(number));
                }
                let seconds = seconds % 9_000_000_000_000;
                let value = Value::Timestamp { seconds, nanos };
                if let Ok(moment) = NaiveDateTime::from_value(value.clone()) {
                    prop_assert_eq!(moment.to_value(), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fmt::Debug;

    use super::*;

    pub(super) fn check<T: OplogValue + PartialEq + Debug>(rust: &T, value: &Value<'_>) {
        assert_eq!(rust.to_value(), *value, "{rust:?}");
        assert_eq!(T::from_value(value.clone()).as_ref(), Ok(rust), "{rust:?}");
        assert!(value.kind().is_none_or(|kind| kind == T::KIND), "{rust:?}");
    }

    #[test]
    fn every_type_comes_back() {
        check(&true, &Value::Bool(true));
        check(&i8::MIN, &Value::Sint(-128));
        check(&i16::MIN, &Value::Sint(-32_768));
        check(&i32::MIN, &Value::Sint(-2_147_483_648));
        check(&i64::MIN, &Value::Sint(i64::MIN));
        check(&u8::MAX, &Value::Uint(255));
        check(&u16::MAX, &Value::Uint(65_535));
        check(&u32::MAX, &Value::Uint(4_294_967_295));
        check(&u64::MAX, &Value::Uint(u64::MAX));
        check(&1.5f32, &Value::F32(0x3fc0_0000));
        check(&-0.0f64, &Value::F64(0x8000_0000_0000_0000));
        check(&"Ada".to_owned(), &Value::Text("Ada".into()));
        check(&vec![0u8, 255], &Value::Bytes(vec![0, 255].into()));
        check(&None::<i64>, &Value::Null);
        check(&Some(5i64), &Value::Sint(5));
    }

    #[test]
    fn nan_keeps_its_bits() {
        let bits = 0x7ff8_0000_dead_beef;
        let number = f64::from_value(Value::F64(bits)).unwrap();
        assert_eq!(number.to_value(), Value::F64(bits));
    }

    #[test]
    fn out_of_range_names_the_type() {
        let error = i8::from_value(Value::Sint(128)).unwrap_err();
        assert_eq!(error, ValueError::Range { type_name: "i8" });
        let error = u16::from_value(Value::Uint(65_536)).unwrap_err();
        assert_eq!(error, ValueError::Range { type_name: "u16" });
    }

    #[test]
    fn another_kind_is_refused() {
        let error = i64::from_value(Value::Uint(1)).unwrap_err();
        assert_eq!(error.to_string(), "expected sint, found uint");
        let error = String::from_value(Value::Null).unwrap_err();
        assert_eq!(error.to_string(), "expected text, found NULL");
        let error = Option::<bool>::from_value(Value::Text("x".into())).unwrap_err();
        assert_eq!(error.to_string(), "expected bool, found text");
    }

    #[test]
    fn roots() {
        let roots = [bool::ROOT, i8::ROOT, i64::ROOT, u64::ROOT, String::ROOT];
        assert_eq!(roots, [true; 5]);
        let others = [f32::ROOT, f64::ROOT, Vec::<u8>::ROOT, Option::<i64>::ROOT];
        assert_eq!(others, [false; 4]);
        assert_eq!([Option::<i64>::NULLABLE, i64::NULLABLE], [true, false]);
    }
}
