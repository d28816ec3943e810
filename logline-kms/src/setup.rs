//! A client from the environment, as AWS's own tools find it.

use aws_config::BehaviorVersion;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_kms::Client;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use logline_core::contract::KeyError;

use crate::KmsKeys;

impl KmsKeys {
    /// Keys of the account and region of AWS's standard chain: environment, profile, and the machine's or container's role.
    ///
    /// # Errors
    /// [`KeyError::Refused`] if there is no region, or there are no credentials. The service itself is not called.
    pub async fn from_env() -> Result<Self, KeyError> {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        // A later version of the SDK must not change what this crate does by itself.
        let chain = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http).load().await;
        let refused = |reason: String| KeyError::Refused { reason };
        if chain.region().is_none() {
            return Err(refused("AWS KMS has no region: set AWS_REGION, or a region in the profile".to_owned()));
        }
        let advice = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role";
        let provider =
            chain.credentials_provider().ok_or_else(|| refused(format!("there are no credentials for AWS: {advice}")))?;
        if let Err(error) = provider.provide_credentials().await {
            return Err(refused(format!("there are no credentials for AWS ({error}): {advice}")));
        }
        Ok(Self::new(Client::new(&chain)))
    }
}
