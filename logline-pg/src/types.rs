//! Wire formats of those column types of the registry that sqlx does not map as needed here.

use logline_core::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// JSON text as `json`. The server stores it unchanged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Json<T>(pub(crate) T);

/// A point in time as `timestamptz`, in microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Micros(pub(crate) i64);

/// Microseconds from 1970-01-01 to 2000-01-01, where `timestamptz` begins.
const TO_2000: i64 = 946_684_800_000_000;

/// A transaction id that does not wrap around (`xid8`). It is sent as text and cast by the server (`$1::xid8`, `xid::text`). If
/// the driver does not know a type, it asks the server about it between the messages of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Xid(pub(crate) u64);

macro_rules! oids {
    ($([$($generics:tt)*] $type:ty: $oid:literal, array $array:literal;)*) => {
        $(impl<$($generics)*> Type<Postgres> for $type {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_oid(Oid($oid))
            }

            fn compatible(found: &PgTypeInfo) -> bool {
                found.oid() == Some(Oid($oid))
            }
        }

        impl<$($generics)*> PgHasArrayType for $type {
            fn array_type_info() -> PgTypeInfo {
                PgTypeInfo::with_oid(Oid($array))
            }
        })*
    };
}

// The types' object ids, from `pg_type.dat`. They never change.
oids! {
    [T] Json<T>: 114, array 199;
    [] Micros: 1184, array 1185;
    [] Xid: 25, array 1009;
}

impl Encode<'_, Postgres> for Json<&[u8]> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0);
        Ok(IsNull::No)
    }
}

impl<'r> Decode<'r, Postgres> for Json<&'r [u8]> {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(value.as_bytes()?))
    }
}

impl Micros {
    /// `infinity`, when it is encoded.
    pub(crate) const INFINITY: Self = Self(i64::MAX);
}

impl From<Timestamp> for Micros {
    fn from(time: Timestamp) -> Self {
        Self(time.unix_micros())
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = if self.0 == i64::MAX { i64::MAX } else { self.0.saturating_sub(TO_2000) };
        buffer.extend_from_slice(&micros.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl<'r> Decode<'r, Postgres> for Micros {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        // `infinity` becomes the first or last value, which no timestamp of a ledger has.
        Ok(Self(i64::from_be_bytes(value.as_bytes()?.try_into()?).saturating_add(TO_2000)))
    }
}

impl Encode<'_, Postgres> for Xid {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.to_string().as_bytes());
        Ok(IsNull::No)
    }
}

impl<'r> Decode<'r, Postgres> for Xid {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(value.as_str()?.parse()?))
    }
}
