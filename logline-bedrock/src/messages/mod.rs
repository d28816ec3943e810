//! The messages of Anthropic, by `InvokeModel`: the body is the model's own, and Bedrock passes it on. What the newest models can do is often
//! there before Converse has a member for it.

mod answer;
mod body;
mod stream;

pub(crate) use answer::whole;
pub(crate) use body::body;
pub(crate) use stream::Reading;
