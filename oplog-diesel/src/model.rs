use std::any::TypeId;

use oplog_core::{LogRow, TypeDef, Typed};

use crate::replay::TableOps;
use crate::{Cascade, Oplogged, Triggers};

/// A model as the type catalog holds it: its definition, and how its rows are written back on each
/// database.
#[derive(Clone, Copy)]
pub struct Model {
    def: &'static TypeDef,
    triggers: Triggers,
    cascade: Cascade,
    #[cfg(feature = "sqlite")]
    sqlite: &'static dyn TableOps<diesel::sqlite::Sqlite>,
    #[cfg(feature = "postgres_backend")]
    postgres: &'static dyn TableOps<diesel::pg::Pg>,
}

/// A model whose rows can be written back on every database whose feature is on. Every
/// `#[derive(Oplogged)]` is one.
pub trait Replayable: Oplogged + Sealed {
    #[doc(hidden)]
    const MODEL: Model;
}

/// Keeps [`Replayable`] ours.
pub trait Sealed {}
impl<M: Oplogged> Sealed for M {}

macro_rules! replayable {
    ($($(#[$cfg:meta])* $field:ident: $db:ty,)*) => {
        replayable!(@bounds [$($(#[$cfg])* $field: $db,)*]);
    };
    (@bounds [$($(#[$cfg:meta])* $field:ident: $db:ty,)*]) => {
        impl<M> Replayable for M
        where
            M: Oplogged + $($crate::bind::Bindable<$db> +)*
        {
            const MODEL: Model = Model {
                def: <M as LogRow>::DEF,
                triggers: <M as Oplogged>::TRIGGERS,
                cascade: <M as Oplogged>::CASCADE,
                $($(#[$cfg])* $field: &$crate::replay::Ops::<M>::NEW,)*
            };
        }
    };
}

#[cfg(all(feature = "sqlite", feature = "postgres_backend"))]
replayable! { sqlite: diesel::sqlite::Sqlite, postgres: diesel::pg::Pg, }
#[cfg(all(feature = "sqlite", not(feature = "postgres_backend")))]
replayable! { sqlite: diesel::sqlite::Sqlite, }
#[cfg(all(not(feature = "sqlite"), feature = "postgres_backend"))]
replayable! { postgres: diesel::pg::Pg, }
#[cfg(not(any(feature = "sqlite", feature = "postgres_backend")))]
replayable! {}

impl Model {
    /// The model of a type.
    pub const fn of<M: Replayable>() -> Self {
        M::MODEL
    }

    /// What the model looks like in the log.
    pub fn def(&self) -> &'static TypeDef {
        self.def
    }

    /// What the model does about the triggers of its table.
    pub fn triggers(&self) -> Triggers {
        self.triggers
    }

    /// What the model does about the foreign keys that refer to its table.
    pub fn cascade(&self) -> Cascade {
        self.cascade
    }

    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite(&self) -> &'static dyn TableOps<diesel::sqlite::Sqlite> {
        self.sqlite
    }

    #[cfg(feature = "postgres_backend")]
    pub(crate) fn postgres(&self) -> &'static dyn TableOps<diesel::pg::Pg> {
        self.postgres
    }

    /// Whether this is the model of a type.
    pub fn is<M: 'static>(&self) -> bool {
        (self.def.type_id)() == TypeId::of::<M>()
    }
}

impl Typed for Model {
    fn def(&self) -> &'static TypeDef {
        self.def
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Model").field(&self.def.type_name).finish()
    }
}

/// A model that announces itself when its program starts. Written by the derive.
pub struct Linked(pub fn() -> Model);

inventory::collect!(Linked);

/// Every model of this program that the linker kept.
pub(crate) fn linked() -> impl Iterator<Item = Model> {
    inventory::iter::<Linked>
        .into_iter()
        .map(|linked| linked.0())
}

#[doc(hidden)]
#[macro_export]
macro_rules! submit_model {
    ($model:ident) => {
        $crate::__private::inventory::submit! {
            $crate::__private::Linked(|| $crate::__private::Model::of::<$model>())
        }
    };
}
