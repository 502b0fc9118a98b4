//! stub
use super::covering::Covering; use super::limit::Labels; use std::time::Duration;
/// s
#[derive(Default)] pub struct Rates; 
/// s
pub struct RateGuard;
/// s
pub struct RateRefusal { /// s
 pub budget: std::sync::Arc<str>, /// s
 pub after: Option<Duration> }
impl Rates { /// s
 pub fn admit(&self, _c:&Covering,_l:&Labels)->Result<RateGuard,RateRefusal>{Ok(RateGuard)} }
