diesel::table! {
    accounts (id) {
        id -> BigInt,
        owner -> Text,
        balance -> BigInt,
        email -> Nullable<Text>,
    }
}

diesel::table! {
    postings (id) {
        id -> BigInt,
        account_id -> BigInt,
        amount -> BigInt,
        note -> Nullable<Text>,
    }
}

diesel::table! {
    settings (section, name) {
        section -> Text,
        name -> Text,
        value -> Nullable<Binary>,
    }
}

diesel::table! {
    counters (id) {
        id -> BigInt,
        n -> BigInt,
    }
}

diesel::table! {
    everything (id) {
        id -> Integer,
        a_bool -> Bool,
        a_small -> SmallInt,
        an_int -> Integer,
        a_big -> BigInt,
        a_float -> Float,
        a_double -> Double,
        a_text -> Text,
        some_bytes -> Binary,
        a_date -> Date,
        a_time -> Time,
        a_timestamp -> Timestamp,
        maybe_bool -> Nullable<Bool>,
        maybe_small -> Nullable<SmallInt>,
        maybe_int -> Nullable<Integer>,
        maybe_big -> Nullable<BigInt>,
        maybe_float -> Nullable<Float>,
        maybe_double -> Nullable<Double>,
        maybe_text -> Nullable<Text>,
        maybe_bytes -> Nullable<Binary>,
        maybe_date -> Nullable<Date>,
        maybe_time -> Nullable<Time>,
        maybe_timestamp -> Nullable<Timestamp>,
    }
}

diesel::joinable!(postings -> accounts (account_id));
diesel::allow_tables_to_appear_in_same_query!(accounts, postings);
