//! Reading what calls of models will use and did use, and what that costs.

pub mod bound;
pub mod call;
pub mod charge;
pub mod endpoint;
pub mod learned;
pub mod price;
pub mod price_table;
pub mod reading;
pub mod yocto;
