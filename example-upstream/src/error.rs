//! What can go wrong with a request, and the answer to it.
//!
//! Every error leaves as `{"error": "…"}` with its status; nothing else in this crate builds an error response.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A refused or failed request. The text is for the client.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// 400: the body is not JSON, or not said to be.
    NotJson(String),
    /// 404: no such user or path.
    NotFound(String),
    /// 405: the path exists, but not for this method.
    WrongMethod(String),
    /// 409: another user has this email.
    EmailTaken(String),
    /// 413: the body is longer than axum's limit of 2 MB.
    TooLarge(String),
    /// 422: JSON, but not a valid user.
    Invalid(String),
    /// 500: what `/api/v1/error` is there to show.
    Internal,
    /// 507: the store in memory is full.
    Full,
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let text = rejection.body_text();
        match rejection.status() {
            StatusCode::UNPROCESSABLE_ENTITY => Self::Invalid(text),
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge(text),
            _ => Self::NotJson(text),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotJson(text) => (StatusCode::BAD_REQUEST, text),
            Self::NotFound(text) => (StatusCode::NOT_FOUND, text),
            Self::WrongMethod(text) => (StatusCode::METHOD_NOT_ALLOWED, text),
            Self::EmailTaken(email) => (StatusCode::CONFLICT, format!("another user has the email {email}")),
            Self::TooLarge(text) => (StatusCode::PAYLOAD_TOO_LARGE, text),
            Self::Invalid(text) => (StatusCode::UNPROCESSABLE_ENTITY, text),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "this endpoint always fails".to_owned(),
            ),
            Self::Full => (
                StatusCode::INSUFFICIENT_STORAGE,
                "no room for more users: restart the example to start over".to_owned(),
            ),
        };
        (status, Json(json!({ "error": text }))).into_response()
    }
}
