use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};

use crate::wire::TAG_MAX;
use crate::{Aggregate, LogRow, TypeDef, short_name};

/// Something that stands for a model in a [`TypeCatalog`].
pub trait Typed {
    /// What the model looks like in the log.
    fn def(&self) -> &'static TypeDef;
}

impl Typed for &'static TypeDef {
    fn def(&self) -> &'static TypeDef {
        self
    }
}

/// The known models, by stored type name and by Rust type.
///
/// A type name stands for one Rust type and a Rust type for one name; anything else would let two
/// models read each other's rows.
#[derive(Clone, Debug)]
pub struct TypeCatalog<T = &'static TypeDef> {
    by_name: BTreeMap<&'static str, T>,
    names: HashMap<TypeId, &'static str>,
    /// The first model of each aggregate: all others lock its ticket as that one does.
    aggregates: HashMap<&'static str, &'static TypeDef>,
}

/// Why a model can't be registered, or is not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The model has no type name.
    #[error("{rust_name} has an empty type name")]
    EmptyName {
        /// Path of the Rust type.
        rust_name: &'static str,
    },
    /// Two models have the same type name. Rename one of them.
    #[error("both {first} and {second} have the type name {name}")]
    DuplicateName {
        /// The type name.
        name: &'static str,
        /// Path of the Rust type that was registered first.
        first: &'static str,
        /// Path of the other.
        second: &'static str,
    },
    /// One Rust type is registered under two type names.
    #[error("{rust_name} has both the type names {first} and {second}")]
    DuplicateType {
        /// Path of the Rust type.
        rust_name: &'static str,
        /// The name that was registered first.
        first: &'static str,
        /// The other name.
        second: &'static str,
    },
    /// A tag is 0, larger than protobuf allows or in its reserved range 19,000 to 19,999.
    #[error("{rust_name}: column {column} has the invalid tag {tag}")]
    InvalidTag {
        /// Path of the Rust type.
        rust_name: &'static str,
        /// SQL name of the column.
        column: &'static str,
        /// Its tag.
        tag: u32,
    },
    /// A tag belongs to another column already, now or in the past.
    #[error("{rust_name}: column {column} has the tag {tag}, which is taken or reserved")]
    DuplicateTag {
        /// Path of the Rust type.
        rust_name: &'static str,
        /// SQL name of the column.
        column: &'static str,
        /// Its tag.
        tag: u32,
    },
    /// The root of the aggregate is no column of the model.
    #[error("{rust_name}: the root is no column of the model")]
    InvalidRoot {
        /// Path of the Rust type.
        rust_name: &'static str,
    },
    /// Some models of an aggregate lock its ticket first and others do not, so that they would lock
    /// in different orders and deadlock. Write `#[oplog(ticket = "lock_first")]` on all of them or
    /// on none.
    #[error(
        "{lock_first} locks the tickets of `{aggregate}` first and {late} does not: all models of an aggregate must agree"
    )]
    TicketModes {
        /// Name or prefix of the aggregate.
        aggregate: &'static str,
        /// Path of the Rust type that locks first.
        lock_first: &'static str,
        /// Path of the Rust type that does not.
        late: &'static str,
    },
    /// No model has this type name. It is not linked into the program, or was renamed.
    #[error("no model has the type name {}", name.escape_debug())]
    UnknownName {
        /// The type name.
        name: String,
    },
    /// The Rust type is not registered.
    #[error("{rust_name} is not in the type catalog")]
    UnknownType {
        /// Path of the Rust type.
        rust_name: &'static str,
    },
}

impl<T> Default for TypeCatalog<T> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            names: HashMap::new(),
            aggregates: HashMap::new(),
        }
    }
}

impl<T: Typed> TypeCatalog<T> {
    /// An empty catalog.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a model. The same Rust type under the same name again changes nothing.
    ///
    /// # Errors
    ///
    /// `EmptyName`, `DuplicateName`, `DuplicateType`; `InvalidTag`, `DuplicateTag` or
    /// `InvalidRoot` if the model's definition is unusable, which the derive prevents.
    pub fn register(&mut self, item: T) -> Result<(), CatalogError> {
        let def = item.def();
        check_def(def)?;
        let type_id = (def.type_id)();
        if let Some(known) = self.by_name.get(def.type_name) {
            if (known.def().type_id)() == type_id {
                return Ok(());
            }
            return Err(CatalogError::DuplicateName {
                name: def.type_name,
                first: known.def().rust_name,
                second: def.rust_name,
            });
        }
        if let Some(first) = self.names.get(&type_id) {
            return Err(CatalogError::DuplicateType {
                rust_name: def.rust_name,
                first,
                second: def.type_name,
            });
        }
        if let Some(other) = self.aggregates.get(def.aggregate)
            && other.lock_first != def.lock_first
        {
            let (lock_first, late) = match def.lock_first {
                true => (def.rust_name, other.rust_name),
                false => (other.rust_name, def.rust_name),
            };
            return Err(CatalogError::TicketModes {
                aggregate: def.aggregate,
                lock_first,
                late,
            });
        }
        self.aggregates.entry(def.aggregate).or_insert(def);
        self.names.insert(type_id, def.type_name);
        self.by_name.insert(def.type_name, item);
        Ok(())
    }

    /// The model with this stored type name.
    ///
    /// # Errors
    ///
    /// `UnknownName` if there is none.
    pub fn by_name(&self, name: &str) -> Result<&T, CatalogError> {
        self.by_name
            .get(name)
            .ok_or_else(|| CatalogError::UnknownName {
                name: short_name(name),
            })
    }

    /// The model of this Rust type.
    ///
    /// # Errors
    ///
    /// `UnknownType` if it is not registered.
    pub fn by_type<R: LogRow>(&self) -> Result<&T, CatalogError> {
        self.names
            .get(&TypeId::of::<R>())
            .and_then(|name| self.by_name.get(name))
            .ok_or(CatalogError::UnknownType {
                rust_name: R::DEF.rust_name,
            })
    }

    /// The models in byte order of their type names.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.by_name.values()
    }

    /// Whether the models of an aggregate lock its ticket before any row.
    pub fn locks_first(&self, aggregate: &Aggregate) -> bool {
        self.aggregates
            .get(aggregate.prefix())
            .is_some_and(|def| def.lock_first)
    }

    /// How many models there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no model.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

fn check_def(def: &TypeDef) -> Result<(), CatalogError> {
    let rust_name = def.rust_name;
    if def.type_name.is_empty() {
        return Err(CatalogError::EmptyName { rust_name });
    }
    for (index, column) in def.columns.iter().enumerate() {
        let (tag, column) = (column.tag, column.name);
        if !matches!(tag, 1..=18_999 | 20_000..=TAG_MAX) {
            return Err(CatalogError::InvalidTag {
                rust_name,
                column,
                tag,
            });
        }
        let is_taken = def.columns[..index].iter().any(|other| other.tag == tag);
        if is_taken || def.reserved.contains(&tag) {
            return Err(CatalogError::DuplicateTag {
                rust_name,
                column,
                tag,
            });
        }
    }
    match def.root {
        Some(root) if root >= def.columns.len() => Err(CatalogError::InvalidRoot { rust_name }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{SAMPLE, Sample};
    use crate::{ColumnDef, Kind, RowError, RowValues, Value};

    struct Other;

    static OTHER: TypeDef = def("a", TypeId::of::<Other>, &[]);

    impl LogRow for Other {
        const DEF: &'static TypeDef = &OTHER;
        fn value(&self, column: usize) -> Value<'_> {
            panic!("no column {column}")
        }
        fn from_row(_: &RowValues<'_>) -> Result<Self, RowError> {
            Ok(Self)
        }
    }

    const fn def(
        type_name: &'static str,
        type_id: fn() -> TypeId,
        columns: &'static [ColumnDef],
    ) -> TypeDef {
        TypeDef {
            type_name,
            rust_name: "tests::Other",
            type_id,
            aggregate: "x",
            root: None,
            columns,
            reserved: &[4],
            partial: false,
            lock_first: false,
        }
    }

    const fn column(tag: u32) -> ColumnDef {
        ColumnDef {
            tag,
            name: "c",
            kind: Kind::Sint,
            nullable: false,
            key: true,
        }
    }

    fn check_refused(def: &'static TypeDef, expected: &str) {
        let mut catalog = TypeCatalog::new();
        assert_eq!(catalog.register(&SAMPLE), Ok(()));
        let error = catalog.register(def).map_err(|error| error.to_string());
        assert_eq!(error, Err(expected.to_owned()));
        assert_eq!(catalog.len(), 1);
    }

    #[test]
    fn models_are_found_by_name_and_type() {
        let mut catalog = TypeCatalog::new();
        assert!(catalog.is_empty());
        assert_eq!(catalog.register(&SAMPLE), Ok(()));
        assert_eq!(catalog.register(&OTHER), Ok(()));
        assert_eq!(catalog.register(&SAMPLE), Ok(()), "again");
        assert_eq!(catalog.len(), 2);

        let names: Vec<_> = catalog.iter().map(|def| def.type_name).collect();
        assert_eq!(names, ["a", "sample"]);
        assert_eq!(
            catalog.by_name("a").map(|def| def.rust_name),
            Ok("tests::Other")
        );
        assert_eq!(
            catalog.by_type::<Sample>().map(|def| def.type_name),
            Ok("sample")
        );
    }

    #[test]
    fn what_is_unknown_is_named() {
        let catalog: TypeCatalog = TypeCatalog::new();
        let error = catalog
            .by_name("b")
            .map(drop)
            .map_err(|error| error.to_string());
        assert_eq!(error, Err("no model has the type name b".to_owned()));
        let long = "b".repeat(100_000);
        let name = short_name(&long);
        assert_eq!(
            catalog.by_name(&long).map(drop),
            Err(CatalogError::UnknownName { name })
        );
        let error = catalog
            .by_type::<Other>()
            .map(drop)
            .map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("tests::Other is not in the type catalog".to_owned())
        );
    }

    #[test]
    fn ambiguous_models_are_refused() {
        static NO_NAME: TypeDef = def("", TypeId::of::<Other>, &[]);
        check_refused(&NO_NAME, "tests::Other has an empty type name");
        static SAME_NAME: TypeDef = def("sample", TypeId::of::<Other>, &[]);
        check_refused(
            &SAME_NAME,
            "both tests::Sample and tests::Other have the type name sample",
        );
        static SAME_TYPE: TypeDef = def("other", TypeId::of::<Sample>, &[]);
        check_refused(
            &SAME_TYPE,
            "tests::Other has both the type names sample and other",
        );
    }

    #[test]
    fn models_of_an_aggregate_agree_on_its_ticket() {
        static LATE: TypeDef = def("late", TypeId::of::<Sample>, &[]);
        static FIRST: TypeDef = TypeDef {
            lock_first: true,
            ..def("first", TypeId::of::<Other>, &[])
        };
        static ELSEWHERE: TypeDef = TypeDef {
            aggregate: "y",
            ..def("elsewhere", TypeId::of::<Sample>, &[])
        };
        let error = "tests::Other locks the tickets of `x` first and tests::Other does not: \
                     all models of an aggregate must agree";
        for (one, other) in [(&LATE, &FIRST), (&FIRST, &LATE)] {
            let mut catalog = TypeCatalog::new();
            assert_eq!(catalog.register(one), Ok(()));
            let refused = catalog.register(other).map_err(|error| error.to_string());
            assert_eq!(refused, Err(error.to_owned()));
        }

        let mut catalog = TypeCatalog::new();
        assert_eq!(catalog.register(&FIRST), Ok(()));
        assert_eq!(catalog.register(&ELSEWHERE), Ok(()));
        let first = |name: &str| catalog.locks_first(&Aggregate::new(name));
        assert!(first("x") && first("x:1") && first("x:a:b"));
        assert!(!first("y") && !first("y:x") && !first("xx:1") && !first(""));
    }

    #[test]
    fn unusable_definitions_are_refused() {
        static ZERO: TypeDef = def("o", TypeId::of::<Other>, &[column(0)]);
        check_refused(&ZERO, "tests::Other: column c has the invalid tag 0");
        static PROTOBUFS: TypeDef = def("o", TypeId::of::<Other>, &[column(19_000)]);
        check_refused(
            &PROTOBUFS,
            "tests::Other: column c has the invalid tag 19000",
        );
        static RESERVED: TypeDef = def("o", TypeId::of::<Other>, &[column(4)]);
        check_refused(
            &RESERVED,
            "tests::Other: column c has the tag 4, which is taken or reserved",
        );
        static TWICE: TypeDef = def("o", TypeId::of::<Other>, &[column(1), column(1)]);
        check_refused(
            &TWICE,
            "tests::Other: column c has the tag 1, which is taken or reserved",
        );
        static ROOT: TypeDef = TypeDef {
            root: Some(1),
            ..def("o", TypeId::of::<Other>, &[column(1)])
        };
        check_refused(&ROOT, "tests::Other: the root is no column of the model");
    }
}
