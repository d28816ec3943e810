//! The shapes of keys and dry runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The filters of the list of schedules. [`crate::rows::filter`] reads them.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a part of the OpenAPI document")]
pub(crate) struct ScheduleFilters {
    /// This function only
    id: Option<Uuid>,
    /// This owner only. Must be the token's user, unless the token reads the whole tenant
    owner_id: Option<String>,
    /// Must be the token's tenant
    tenant_id: Option<String>,
}

/// The name of a permission.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Permission)]
pub(crate) enum PermissionName {
    #[serde(rename = "spans:read")]
    Read,
    #[serde(rename = "spans:write")]
    Write,
    #[serde(rename = "requests:execute")]
    Execute,
    #[serde(rename = "requests:manage")]
    Manage,
    #[serde(rename = "keys:manage")]
    ManageKeys,
    #[serde(rename = "tenant:read")]
    ReadTenant,
    #[serde(rename = "tenant:manage")]
    ManageTenant,
}

/// A key to issue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedKey {
    /// A name for people, such as the service that will hold it.
    #[schema(min_length = 1, max_length = 200)]
    pub(crate) name: String,
    /// What it permits, at most what the token permits.
    #[schema(min_items = 1, value_type = Vec<PermissionName>)]
    pub(crate) permissions: Vec<String>,
    /// The user whose rights it has. Default: the token's; another one needs `tenant:manage`.
    #[schema(min_length = 1)]
    pub(crate) user: Option<String>,
    /// How long it lasts: 1 to 365 days, 90 if absent.
    #[schema(minimum = 1, maximum = 365)]
    pub(crate) days: Option<u32>,
}

/// How a key gets its new secret.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// How long the old secret still counts: at most a week, not at all if absent.
    #[schema(maximum = 604_800)]
    pub(crate) overlap_seconds: Option<u64>,
}

/// A key and its secret, which is told once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewToken {
    pub(crate) id: Uuid,
    /// The version of its span.
    pub(crate) seq: u32,
    /// What the client sends as its token.
    pub(crate) token: String,
}

/// A key that has ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Revoked {
    pub(crate) id: Uuid,
    /// `revoked`
    pub(crate) status: String,
}

/// What a policy would have decided about one span.
#[cfg(feature = "policies")]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForeseenBody {
    pub(crate) id: Uuid,
    pub(crate) seq: u32,
    pub(crate) at: String,
    /// What follows; null if it could not decide.
    pub(crate) decision: Option<serde_json::Value>,
    /// Why it could not decide, as `{code, message}`.
    pub(crate) error: Option<serde_json::Value>,
}

/// What a policy would have decided.
#[cfg(feature = "policies")]
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DryRun {
    pub(crate) foreseen: Vec<ForeseenBody>,
}
