//! A commit's time as text.

/// The moment in RFC 3339 with its offset from UTC, or `@seconds` if its year has no four digits.
pub fn rfc3339(seconds: i64, offset_minutes: i32) -> String {
    let local = seconds.saturating_add(i64::from(offset_minutes) * 60);
    let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let Some((year, month, day)) = date(days) else {
        return format!("@{seconds}");
    };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let zone = match offset_minutes {
        0 => "Z".to_owned(),
        minutes => format!(
            "{}{:02}:{:02}",
            if minutes < 0 { '-' } else { '+' },
            minutes.unsigned_abs() / 60,
            minutes.unsigned_abs() % 60
        ),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{zone}")
}

/// Year, month and day that lie `days` after 1970-01-01, `None` outside the years 0 to 9999.
fn date(days: i64) -> Option<(i64, i64, i64)> {
    const FIRST: i64 = -719_528; // 0000-01-01
    const LAST: i64 = 2_932_896; // 9999-12-31
    if !(FIRST..=LAST).contains(&days) {
        return None;
    }
    // Counts from 1 March of the year 0, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    Some((year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: i64, offset_minutes: i32, expected: &str) {
        assert_eq!(rfc3339(seconds, offset_minutes), expected);
    }

    #[test]
    fn moments_are_written_in_their_own_zone() {
        check(0, 0, "1970-01-01T00:00:00Z");
        check(-1, 0, "1969-12-31T23:59:59Z");
        check(951_782_399, 60, "2000-02-29T00:59:59+01:00");
        check(951_868_799, 0, "2000-02-29T23:59:59Z");
        check(1_700_000_000, -210, "2023-11-14T18:43:20-03:30");
        check(253_402_300_799, 0, "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_year_without_four_digits_is_a_number() {
        check(253_402_300_800, 0, "@253402300800");
        check(i64::MAX, 1440, &format!("@{}", i64::MAX));
        check(i64::MIN, -1440, &format!("@{}", i64::MIN));
    }
}
