use std::fmt;

/// How deep [`Argument`]s nest at most: a plain value has depth 1, a list of plain values 2.
///
/// Source: `FORMAT.md`, section "Messages".
pub const ARGUMENT_DEPTH_MAX: usize = 24;

/// What changed the effect of the logged statement.
///
/// Options are recorded so that a reader sees under which conditions a row was written. Replay
/// applies the images of rows and never evaluates a condition or an expression again.
///
/// `Debug` shows structure and names, never the text of conditions, expressions or arguments.
///
/// Source: `FORMAT.md`, section "Messages".
#[derive(Clone, Default, PartialEq)]
pub struct Options {
    /// The row was written only if its version column had this value.
    pub version: Option<u32>,
    /// The application's own check of the row was skipped.
    pub skip_vet: bool,
    /// Condition of the statement in SQL, with `?` for each argument. Empty: none.
    pub where_clause: String,
    /// The arguments of [`where_clause`](Self::where_clause), in order.
    pub where_args: Vec<Argument>,
    /// What an insert did about a row that was there already.
    pub on_conflict: Option<OnConflict>,
}

/// What an insert did about a row that was there already.
#[derive(Clone, Debug, PartialEq)]
pub struct OnConflict {
    /// Which conflict.
    pub target: Target,
    /// What was done about it.
    pub action: Action,
}

/// Which conflict of an insert is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A violation of the constraint of this name.
    Constraint(String),
    /// A violation of the unique index over these columns.
    Columns(Vec<String>),
}

/// What an insert did about a conflict.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Left the row as it was.
    Nothing,
    /// Set every column to the value that was to be inserted.
    UpdateAll,
    /// Set these columns.
    Update(Vec<ColumnUpdate>),
}

/// One column that an insert set on conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnUpdate {
    /// SQL name of the column.
    pub column: String,
    /// What it was set to.
    pub value: NewValue,
}

/// What a column was set to on conflict. `Debug` hides the text of an expression.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum NewValue {
    /// A value.
    Raw(Argument),
    /// An SQL expression.
    Expression {
        /// The expression, with `?` for each argument.
        sql: String,
        /// The arguments, in order.
        args: Vec<Argument>,
    },
    /// Another column.
    Column {
        /// SQL name of the column.
        name: String,
        /// Its table; `excluded` stands for the row that was to be inserted.
        table: String,
    },
}

/// An argument of a condition or an expression: what `google.protobuf.Value` can hold.
///
/// Every number is an `f64`, so integers beyond 2^53 are not exact. `Debug` shows the kind only.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Argument {
    /// SQL `NULL`.
    Null,
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// A boolean.
    Bool(bool),
    /// Named values, in the order in which they are stored.
    Struct(Vec<(String, Argument)>),
    /// Values in order.
    List(Vec<Argument>),
}

/// Options that can't be written or read. Carries no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The stored bytes are no options.
    #[error("the bytes of the options are malformed")]
    Malformed,
    /// An on-conflict clause does not say which conflict it means.
    #[error("the on-conflict clause has no target")]
    NoTarget,
    /// An on-conflict clause does not say what to do.
    #[error("the on-conflict clause has no action")]
    NoAction,
    /// An argument or a column's new value is of no known kind.
    #[error("an argument or a column's new value is of no known kind")]
    NoValue,
    /// Arguments nest deeper than [`ARGUMENT_DEPTH_MAX`].
    #[error("arguments nest deeper than {max} levels")]
    TooDeep {
        /// The limit.
        max: usize,
    },
}

impl Options {
    /// Whether no argument nests too deep to be read again.
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        check_depth(&self.where_args)?;
        let Some(OnConflict {
            action: Action::Update(columns),
            ..
        }) = &self.on_conflict
        else {
            return Ok(());
        };
        columns.iter().try_for_each(|update| match &update.value {
            NewValue::Raw(argument) => check_depth(std::slice::from_ref(argument)),
            NewValue::Expression { args, .. } => check_depth(args),
            NewValue::Column { .. } => Ok(()),
        })
    }
}

fn check_depth(arguments: &[Argument]) -> Result<(), OptionsError> {
    if arguments
        .iter()
        .all(|argument| fits(argument, ARGUMENT_DEPTH_MAX))
    {
        Ok(())
    } else {
        Err(OptionsError::TooDeep {
            max: ARGUMENT_DEPTH_MAX,
        })
    }
}

// Descends no further than the limit, so an argument of any depth is safe to check.
fn fits(argument: &Argument, depth_left: usize) -> bool {
    let Some(below) = depth_left.checked_sub(1) else {
        return false;
    };
    match argument {
        Argument::Struct(fields) => fields.iter().all(|(_, value)| fits(value, below)),
        Argument::List(values) => values.iter().all(|value| fits(value, below)),
        _ => true,
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("version", &self.version)
            .field("skip_vet", &self.skip_vet)
            .field("where_clause_len", &self.where_clause.len())
            .field("where_args", &self.where_args)
            .field("on_conflict", &self.on_conflict)
            .finish()
    }
}

impl fmt::Debug for NewValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(argument) => f.debug_tuple("Raw").field(argument).finish(),
            Self::Expression { sql, args } => f
                .debug_struct("Expression")
                .field("sql_len", &sql.len())
                .field("args", args)
                .finish(),
            Self::Column { name, table } => f
                .debug_struct("Column")
                .field("name", name)
                .field("table", table)
                .finish(),
        }
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Number(_) => f.write_str("Number"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Bool(_) => f.write_str("Bool"),
            Self::Struct(fields) => write!(f, "Struct({} fields)", fields.len()),
            Self::List(values) => write!(f, "List({} values)", values.len()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{decode_options, encode_options};

    fn argument() -> impl Strategy<Value = Argument> {
        let leaf = prop_oneof![
            Just(Argument::Null),
            // A NaN equals nothing, itself included.
            any::<f64>()
                .prop_filter("not NaN", |number| !number.is_nan())
                .prop_map(Argument::Number),
            any::<String>().prop_map(Argument::Text),
            any::<bool>().prop_map(Argument::Bool),
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(Argument::List),
                vec((any::<String>(), inner), 0..3).prop_map(Argument::Struct),
            ]
        })
    }

    fn on_conflict() -> impl Strategy<Value = OnConflict> {
        let names = vec("[a-z]{0,4}", 0..3);
        let target = prop_oneof![
            "[a-z]{0,4}".prop_map(Target::Constraint),
            names.prop_map(Target::Columns),
        ];
        let value = prop_oneof![
            argument().prop_map(NewValue::Raw),
            ("[a-z]{0,4}", vec(argument(), 0..3))
                .prop_map(|(sql, args)| NewValue::Expression { sql, args }),
            ("[a-z]{0,4}", "[a-z]{0,4}").prop_map(|(name, table)| NewValue::Column { name, table }),
        ];
        let update =
            ("[a-z]{0,4}", value).prop_map(|(column, value)| ColumnUpdate { column, value });
        let action = prop_oneof![
            Just(Action::Nothing),
            Just(Action::UpdateAll),
            vec(update, 0..3).prop_map(Action::Update),
        ];
        (target, action).prop_map(|(target, action)| OnConflict { target, action })
    }

    pub(crate) fn options() -> impl Strategy<Value = Options> {
        (
            any::<Option<u32>>(),
            any::<bool>(),
            "[a-z ?]{0,8}",
            vec(argument(), 0..3),
            option::of(on_conflict()),
        )
            .prop_map(
                |(version, skip_vet, where_clause, where_args, on_conflict)| Options {
                    version,
                    skip_vet,
                    where_clause,
                    where_args,
                    on_conflict,
                },
            )
    }

    fn nested(depth: usize) -> Options {
        let argument = (1..depth).fold(Argument::Null, |inner, level| {
            if level % 2 == 0 {
                Argument::List(vec![inner])
            } else {
                Argument::Struct(vec![("k".to_owned(), inner)])
            }
        });
        let value = NewValue::Expression {
            sql: "?".to_owned(),
            args: vec![argument],
        };
        Options {
            on_conflict: Some(OnConflict {
                target: Target::Constraint("c".to_owned()),
                action: Action::Update(vec![ColumnUpdate {
                    column: "x".to_owned(),
                    value,
                }]),
            }),
            ..Options::default()
        }
    }

    #[test]
    fn what_may_be_written_can_be_read() {
        let deepest = nested(ARGUMENT_DEPTH_MAX);
        assert_eq!(deepest.check(), Ok(()));
        assert_eq!(decode_options(&encode_options(&deepest)), Ok(deepest));

        let too_deep = nested(ARGUMENT_DEPTH_MAX + 1);
        let error = OptionsError::TooDeep {
            max: ARGUMENT_DEPTH_MAX,
        };
        assert_eq!(too_deep.check(), Err(error));
    }

    #[test]
    fn a_clause_without_target_action_or_value_is_refused() {
        for (bytes, expected) in [
            (&[0x2a, 0x03, 0x98, 0x03, 0x01][..], OptionsError::NoTarget),
            (&[0x2a, 0x02, 0x52, 0x00], OptionsError::NoAction),
            (
                &[0x2a, 0x05, 0x52, 0x00, 0x98, 0x03, 0x00],
                OptionsError::NoAction,
            ),
            (&[0x22, 0x00], OptionsError::NoValue),
            (&[0x22, 0x02, 0x08, 0x01], OptionsError::NoValue),
            (&[0x2a], OptionsError::Malformed),
        ] {
            assert_eq!(decode_options(bytes), Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn debug_hides_content() {
        let options = Options {
            where_clause: "name = 'secret'".to_owned(),
            where_args: vec![
                Argument::Text("secret".to_owned()),
                Argument::Number(4711.0),
                Argument::List(vec![Argument::Text("secret".to_owned())]),
            ],
            on_conflict: Some(OnConflict {
                target: Target::Columns(vec!["name".to_owned()]),
                action: Action::Update(vec![ColumnUpdate {
                    column: "name".to_owned(),
                    value: NewValue::Expression {
                        sql: "'secret'".to_owned(),
                        args: vec![Argument::Text("secret".to_owned())],
                    },
                }]),
            }),
            ..Options::default()
        };
        let shown = format!("{options:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("4711"),
            "{shown}"
        );
        assert!(shown.contains("name"), "{shown}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn options_round_trip(options in options()) {
            prop_assert_eq!(decode_options(&encode_options(&options)), Ok(options));
        }
    }
}
