//! Commands: thin, each over one entry of the floors below.

pub mod args;
pub mod ca;
pub mod check;
pub mod context;
pub mod creds;
pub mod creds_list;
pub mod creds_placeholder;
pub mod creds_refresh;
pub mod dispatch;
pub mod env;
pub mod generate;
pub mod launch;
pub mod moment;
pub mod output;
pub mod probe;
pub mod serve;
pub mod why;
