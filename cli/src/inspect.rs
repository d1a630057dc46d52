//! `inspect`: what is in a graph or in a file of weights, as a table.
use crate::ui::Ui;
use clap::ArgMatches;
use modelport_ir::Result;
pub fn inspect(_matches: &ArgMatches, _ui: &mut Ui) -> Result<()> {
    Ok(())
}
