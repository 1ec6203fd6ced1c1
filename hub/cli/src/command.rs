//! The commands, one module a noun.

pub(crate) mod admin;
pub(crate) mod app;
pub(crate) mod apply;
pub(crate) mod appset;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod hub;
pub(crate) mod login;
pub(crate) mod proj;
pub(crate) mod render;
pub(crate) mod rollout;
pub(crate) mod version;

mod list;

use anyhow::Result;

use crate::{
    args::{Arguments, Command},
    client::Client,
    output::Output,
};

/// Runs a command; what was printed before an error stays printed.
pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<()> {
    let result = dispatch(arguments, output).await;
    output.flush()?;
    result
}

async fn dispatch(Arguments { global, command }: Arguments, output: &mut Output) -> Result<()> {
    let client = || Client::new(&global);
    match command {
        Command::Login(login) => login::run(&global, login, output).await,
        Command::App(command) => app::run(&client().await?, command, output).await,
        Command::Appset(command) => appset::run(&client().await?, command, output).await,
        Command::Proj(command) => proj::run(&client().await?, command, output).await,
        Command::Cluster(command) => cluster::run(&client().await?, command, output).await,
        Command::Rollout(command) => rollout::run(&client().await?, command, output).await,
        Command::Admin(command) => admin::run(&global, command, output).await,
        Command::Hub(command) => hub::run(&client().await?, command, output).await,
        Command::Apply(command) => apply::run(&client().await?, command, output).await,
        Command::Render(command) => render::run(&command, output),
        Command::Completion(command) => completion::run(&command, output),
        #[cfg(feature = "demo")]
        Command::Demo(command) => crate::demo::run(&command).await,
        #[cfg(feature = "demo")]
        Command::DemoHub(_) => Err(anyhow::anyhow!("a hub is started before anything else")),
        Command::Version(command) => version::run(&global, &command, output).await,
    }
}
