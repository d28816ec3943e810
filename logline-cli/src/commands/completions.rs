//! `logline completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Error;

#[derive(Args)]
#[command(after_help = "Example: logline completions bash > ~/.local/share/bash-completion/completions/logline")]
pub(crate) struct Options {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run<C: CommandFactory>(options: &Options) -> Result<bool, Error> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut C::command(), "logline", &mut script);
    crate::output::raw(String::from_utf8(script)?.trim_end());
    Ok(true)
}
