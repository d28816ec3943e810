//! Who may sign what: the roles of keys, and the table of entity types that says which role each type needs.
//!
//! The table is [`ENTITY_TYPES`]. The driver, the importer, `fsck`, the scopes of users, the actions of policies, and the
//! row-level security of PostgreSQL follow it. `docs/trust.md` prints it.

mod entity_types;
mod role;

pub use entity_types::{
    ENTITY_TYPES, EntityType, RESERVED_PREFIX, Signed, is_emitted_by_policies, is_near, is_reserved_for_runtime, required,
    similar,
};
pub use role::Role;
