//! Backups in an S3-compatible store: the only file that names the client.
//!
//! Requests are signed with version 4 (AWS, "Signing AWS API requests"). Uploads are multipart, one part in memory at a time; a
//! failed one is aborted. Credentials are read again for each run, so that they can be exchanged.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{
    Certificate, ClientOptions, Error, MultipartUpload as _, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use tokio::sync::mpsc;
use windlass_protocol::backup::is_file_name;

/// Bytes of a part: at most 10,000 parts make a file, so this one is up to 80 GiB; the smallest that S3 takes is 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Names listed of one prefix: a retention of far less is usual.
const NAMES_MAX: usize = 100_000;
const RETRIES_MAX: usize = 3;
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A part or a piece must have moved within this time.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(120);
/// Where S3 is when no endpoint is configured.
const REGION: &str = "us-east-1";
/// What the client finds in the environment besides keys: identities of the machine or Pod that it runs in.
const AMBIENT: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Where backups are, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// URL of the service; AWS itself when unset.
    pub endpoint: Option<String>,
    /// Bucket.
    pub bucket: String,
    /// What names begin with, such as `argocd`; may be empty.
    pub prefix: String,
    /// Region; `us-east-1` when unset.
    pub region: Option<String>,
    /// File with the id of the access key; without it the environment is asked (`AWS_ACCESS_KEY_ID`).
    pub access_key_file: Option<PathBuf>,
    /// File with the secret access key; without it the environment is asked (`AWS_SECRET_ACCESS_KEY`).
    pub secret_key_file: Option<PathBuf>,
    /// The bucket stands in the path of the URL, not in the host, as most services other than AWS want it.
    pub path_style: bool,
    /// File of certificates (PEM) that the service's certificate must chain to.
    pub ca_file: Option<PathBuf>,
}

impl S3Settings {
    fn service(&self) -> &str {
        self.endpoint.as_deref().unwrap_or("AWS")
    }
}

/// Why S3 did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The settings cannot be used.
    #[error("[backup.s3] {name}: {message}")]
    Settings {
        /// Which.
        name: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// Wrong keys, or not allowed.
    #[error(
        "S3 at {service} refuses these credentials for bucket {bucket:?}: check access_key_file, secret_key_file and the bucket's policy ({detail})"
    )]
    Refused {
        /// URL.
        service: String,
        /// Bucket.
        bucket: String,
        /// What it said.
        detail: String,
    },
    /// The bucket is not there.
    #[error("S3 at {service} has no bucket {bucket:?}: create it, or correct `bucket` of [backup.s3]")]
    NoBucket {
        /// URL.
        service: String,
        /// Bucket.
        bucket: String,
    },
    /// The object is not there.
    #[error(
        "S3 at {service} has no object {name:?} in bucket {bucket:?}: `windlass admin backup list` names those that are there"
    )]
    NoObject {
        /// URL.
        service: String,
        /// Bucket.
        bucket: String,
        /// Which.
        name: String,
    },
    /// No answer, or none that makes sense.
    #[error("S3 at {service} cannot be reached, or answers with an error: check `endpoint` and the network ({detail})")]
    Unreachable {
        /// URL.
        service: String,
        /// What happened.
        detail: String,
    },
    /// The side that makes the content ended early.
    #[error("the upload was given up: the backup could not be written")]
    GivenUp,
}

/// One bucket and prefix.
#[derive(Clone, Debug)]
pub(super) struct S3 {
    client: Arc<AmazonS3>,
    settings: S3Settings,
}

impl S3 {
    /// Reads the credentials; does not connect yet.
    pub(super) fn open(settings: &S3Settings) -> Result<Self, S3Error> {
        let bad = |name: &'static str, message: String| S3Error::Settings { name, message };
        let mut options = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIME_MAX)
            .with_timeout(REQUEST_TIME_MAX)
            .with_allow_http(settings.endpoint.as_deref().is_some_and(|url| url.starts_with("http://")));
        if let Some(path) = &settings.ca_file {
            let pem = fs::read(path).map_err(|error| bad("ca_file", format!("{}: {error}", path.display())))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|error| bad("ca_file", format!("{}: {error}", path.display())))?;
            for certificate in certificates {
                options = options.with_root_certificate(certificate);
            }
        }
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIME_MAX, ..RetryConfig::default() };
        let region = settings.region.clone();
        let mut builder = match (&settings.access_key_file, &settings.secret_key_file) {
            (Some(id), Some(secret)) => AmazonS3Builder::new()
                .with_access_key_id(read(id, "access_key_file")?)
                .with_secret_access_key(read(secret, "secret_key_file")?)
                .with_region(region.unwrap_or_else(|| REGION.to_owned())),
            (None, None) if AMBIENT.iter().any(|name| std::env::var_os(name).is_some()) => {
                let builder = AmazonS3Builder::from_env();
                let known = std::env::var_os("AWS_REGION").or_else(|| std::env::var_os("AWS_DEFAULT_REGION"));
                match region {
                    Some(region) => builder.with_region(region),
                    None if known.is_some() => builder,
                    None => builder.with_region(REGION),
                }
            }
            (None, None) => {
                let message = "there are no credentials: set access_key_file and secret_key_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
                return Err(bad("access_key_file", message.to_owned()));
            }
            _ => return Err(bad("access_key_file", "set it and secret_key_file together".to_owned())),
        };
        builder = builder
            .with_bucket_name(&settings.bucket)
            .with_virtual_hosted_style_request(!settings.path_style)
            .with_client_options(options)
            .with_retry(retry)
            // Not every compatible service has it; retention removes one file a day.
            .with_disable_bulk_delete(true);
        if let Some(endpoint) = &settings.endpoint {
            builder =
                builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(endpoint.starts_with("http://"));
        }
        let client = builder.build().map_err(|error| bad("endpoint", error.to_string()))?;
        Ok(Self { client: Arc::new(client), settings: settings.clone() })
    }

    /// `s3://bucket/prefix/NAME`, for people.
    pub(super) fn address(&self, name: &str) -> String {
        format!("s3://{}/{}", self.settings.bucket, self.path(name))
    }

    /// Stores what comes, under a name; returns the number of bytes. `whole` says whether everything came.
    pub(super) async fn put(
        &self,
        name: &str,
        mut pieces: mpsc::Receiver<Bytes>,
        whole: impl Future<Output = bool>,
    ) -> Result<u64, S3Error> {
        let path = self.path(name);
        let failed = |error| self.error(name, error);
        let mut upload = self.client.put_multipart(&path).await.map_err(failed)?;
        let mut part = BytesMut::new();
        let mut bytes = 0;
        let sent = async {
            while let Some(piece) = pieces.recv().await {
                bytes += piece.len() as u64;
                part.extend_from_slice(&piece);
                if part.len() >= PART_BYTES {
                    let full = part.split_to(PART_BYTES).freeze();
                    upload.put_part(full.into()).await.map_err(failed)?;
                }
            }
            drop(pieces);
            if !whole.await {
                return Err(S3Error::GivenUp);
            }
            upload.put_part(part.split().freeze().into()).await.map_err(failed)?;
            upload.complete().await.map_err(failed)
        }
        .await;
        if let Err(error) = sent {
            // What cannot be aborted is left to the bucket's own rules.
            if let Err(error) = upload.abort().await {
                tracing::warn!(error = %self.error(name, error), "a failed upload could not be aborted");
            }
            return Err(error);
        }
        Ok(bytes)
    }

    /// Hands over the content of an object; an error is the last piece.
    pub(super) async fn get(&self, name: &str, pieces: mpsc::Sender<io::Result<Bytes>>) {
        let result = async {
            let found = self.client.get(&self.path(name)).await.map_err(|error| self.error(name, error))?;
            let mut stream = found.into_stream();
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(|error| self.error(name, error))?;
                if pieces.send(Ok(piece)).await.is_err() {
                    break;
                }
            }
            Ok::<(), S3Error>(())
        };
        if let Err(error) = result.await {
            let _ = pieces.send(Err(io::Error::other(super::BackupError::from(error)))).await;
        }
    }

    /// Names of backups in the prefix, in no order; others are not shown.
    pub(super) async fn names(&self) -> Result<Vec<String>, S3Error> {
        let prefix = Path::from(self.settings.prefix.as_str());
        let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
        let listed: Vec<_> = self
            .client
            .list(prefix.as_ref())
            .take(NAMES_MAX)
            .try_collect()
            .await
            .map_err(|error| self.error("", error))?;
        let ours = listed.into_iter().filter_map(|object| {
            let name = object.location.filename().filter(|name| is_file_name(name))?;
            (self.path(name) == object.location).then(|| name.to_owned())
        });
        Ok(ours.collect())
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), S3Error> {
        self.client.delete(&self.path(name)).await.map_err(|error| self.error(name, error))
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.settings.prefix))
    }

    fn error(&self, name: &str, error: Error) -> S3Error {
        let (service, bucket) = (self.settings.service().to_owned(), self.settings.bucket.clone());
        let detail = detail(&error);
        match error {
            Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => {
                S3Error::Refused { service, bucket, detail }
            }
            Error::NotFound { .. } if detail.contains("NoSuchKey") => {
                S3Error::NoObject { service, bucket, name: name.to_owned() }
            }
            Error::NotFound { .. } => S3Error::NoBucket { service, bucket },
            _ => S3Error::Unreachable { service, detail },
        }
    }
}

/// The innermost causes, which are what an operator can act on; bounded, since a service may answer with a page.
fn detail(error: &Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // Many layers repeat what is inside of them.
        texts.retain(|outer| !outer.contains(&text));
        texts.push(text);
        cause = error.source();
    }
    texts.join(": ").chars().filter(|char| !char.is_control()).take(300).collect()
}

fn read(path: &std::path::Path, name: &'static str) -> Result<String, S3Error> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| S3Error::Settings { name, message: format!("{}: {error}", path.display()) })?;
    Ok(text.trim().to_owned())
}
