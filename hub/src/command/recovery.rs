//! `windlass-hub restore` and `verify-backup`: what somebody does who has lost a group, or fears to.

use std::{io::Write as _, path::PathBuf};

use clap::Args;

use crate::{
    backup::{AdminAccess, S3Settings, open_source, restore, verify},
    config::{Config, Flags},
    replica::wall_clock,
    trust::operator_key,
};

/// What `restore` takes.
#[derive(Args, Debug)]
pub(super) struct RestoreFlags {
    #[command(flatten)]
    pub(super) hub: Flags,
    #[command(flatten)]
    source: SourceFlags,
    /// Make a new token for the account `admin`, and a kubeconfig with it; without this the old token stays valid.
    #[arg(long)]
    new_admin_token: bool,
}

/// What `verify-backup` takes.
#[derive(Args, Debug)]
pub(super) struct VerifyFlags {
    #[command(flatten)]
    pub(super) hub: Flags,
    #[command(flatten)]
    source: SourceFlags,
}

/// Where a backup is.
#[derive(Args, Debug)]
struct SourceFlags {
    /// The backup: a file, `-` for standard input, or s3://BUCKET/PREFIX/NAME.
    #[arg(long, value_name = "BACKUP")]
    backup: String,
    /// URL of the S3 service [default: that of [backup.s3], else AWS].
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, value_name = "REGION")]
    s3_region: Option<String>,
    /// The bucket stands in the path of the URL.
    #[arg(long)]
    s3_path_style: bool,
    /// File of certificates (PEM) that the service's certificate must chain to.
    #[arg(long, value_name = "FILE")]
    s3_ca_file: Option<PathBuf>,
    /// File with the id of the access key [default: AWS_ACCESS_KEY_ID].
    #[arg(long, value_name = "FILE", requires = "s3_secret_key_file")]
    s3_access_key_file: Option<PathBuf>,
    /// File with the secret access key [default: AWS_SECRET_ACCESS_KEY].
    #[arg(long, value_name = "FILE", requires = "s3_access_key_file")]
    s3_secret_key_file: Option<PathBuf>,
}

impl SourceFlags {
    /// Flags go before the section `[backup.s3]`.
    fn s3(&self, config: &Config) -> S3Settings {
        let known = config.backup_s3.clone();
        S3Settings {
            endpoint: self.s3_endpoint.clone().or(known.endpoint),
            region: self.s3_region.clone().or(known.region),
            path_style: self.s3_path_style || known.path_style,
            ca_file: self.s3_ca_file.clone().or(known.ca_file),
            access_key_file: self.s3_access_key_file.clone().or(known.access_key_file),
            secret_key_file: self.s3_secret_key_file.clone().or(known.secret_key_file),
            ..known
        }
    }
}

/// Restores, and says what came of it.
pub(super) async fn restore_group(config: Config, flags: RestoreFlags) -> anyhow::Result<()> {
    let access = if flags.new_admin_token { AdminAccess::NewToken } else { AdminAccess::Keep };
    let (settings, source) = (flags.source.s3(&config), flags.source.backup);
    let data = config.data.clone();
    let restoring = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let sealer = operator_key(&config, None)?;
        Ok(restore(&config, &sealer, open_source(&source, &settings)?, access, wall_clock())?)
    });
    let made = restoring.await??;
    let mut out = std::io::stdout().lock();
    writeln!(out, "backup         {} of group {}", made.header.created_at, made.header.cluster_id)?;
    writeln!(out, "group          {}", made.cluster_id)?;
    writeln!(out, "trust domain   {}", made.header.trust_domain)?;
    writeln!(out, "root pin       {}", made.pin)?;
    writeln!(out, "epoch          {} (was {})", made.epoch, made.header.epoch)?;
    writeln!(out, "revision       {} (was {})", made.revision, made.header.revision)?;
    writeln!(out, "blobs          {}", made.blobs)?;
    if let Some((token, kubeconfig)) = &made.admin {
        writeln!(out, "admin token    {}", token.expose())?;
        writeln!(out, "kubeconfig     {}", kubeconfig.display())?;
    }
    let mut talk = std::io::stderr().lock();
    if made.missing > 0 {
        writeln!(talk, "\nThe backup lacks {} blobs: their manifests are rendered again from Git.", made.missing)?;
    }
    let data = data.display();
    writeln!(talk, "\nNothing on any cluster is deleted. Next, on the addresses that agents know:")?;
    writeln!(talk, "  windlass-hub serve --data {data}")?;
    writeln!(talk, "Keep every node of the old group switched off.")?;
    Ok(())
}

impl VerifyFlags {
    /// Only the key matters, and where S3 is: a directory need not be named.
    pub(super) fn config_flags(&self) -> Flags {
        let data = self.hub.data.clone().or_else(|| self.hub.config.is_none().then(|| PathBuf::from(".")));
        Flags { data, ..self.hub.clone() }
    }
}

/// Verifies, and says what was found.
pub(super) async fn verify_backup(config: Config, flags: VerifyFlags) -> anyhow::Result<()> {
    let (settings, source) = (flags.source.s3(&config), flags.source.backup);
    let verifying = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let sealer = operator_key(&config, None)?;
        Ok(verify(open_source(&source, &settings)?, &sealer)?)
    });
    let found = verifying.await??;
    let mut out = std::io::stdout().lock();
    let header = &found.header;
    writeln!(out, "created        {}", header.created_at)?;
    writeln!(out, "group          {}", header.cluster_id)?;
    writeln!(out, "trust domain   {}", header.trust_domain)?;
    writeln!(out, "epoch          {}", header.epoch)?;
    writeln!(out, "revision       {}", header.revision)?;
    writeln!(out, "release        {} (state version {})", header.software, header.state_version)?;
    writeln!(out, "state hash     {}", header.state_hash)?;
    writeln!(out, "bytes          {}", found.bytes)?;
    writeln!(out, "state records  {}", found.records)?;
    writeln!(out, "blobs          {}", found.blobs)?;
    writeln!(out, "missing blobs  {}", found.missing)?;
    writeln!(out, "The backup is whole, opens with this key, and its state has the hash that its header says.")?;
    Ok(())
}
