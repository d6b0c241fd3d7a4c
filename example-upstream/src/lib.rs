//! The service people put behind sidelog first: a small JSON API over users kept in memory.
//!
//! It is ordinary axum and knows nothing of sidelog: the proxy in front of it needs no change in the service.
//!
//! | request | answer |
//! |---|---|
//! | `GET /health` | 200 `{"status":"ok"}` |
//! | `GET /api/v1/users` | 200, a list of users by ascending id |
//! | `GET /api/v1/users/{id}` | 200 the user, 404 unknown |
//! | `POST /api/v1/users` | 201 the user and its `Location`; 400 not JSON, 409 taken email, 422 invalid |
//! | `GET /api/v1/error` | 500, always |
//!
//! A user is `{"id": int, "name": string, "email": string}`. Every error, also for an unknown path (404) and a
//! wrong method (405), is `{"error": "what is wrong"}`.

mod error;
pub mod telemetry;
mod users;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{Method, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use error::ApiError;
use users::{NewUser, User, Users};

/// The whole API, with its own store of users, ready for [`axum::serve`](fn@axum::serve).
pub fn router() -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/api/v1/users", get(list_users).post(create_user))
        .route("/api/v1/users/{id}", get(show_user))
        .route("/api/v1/error", get(fail))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Users::seeded())
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn list_users(State(users): State<Users>) -> Json<Vec<User>> {
    Json(users.list().await)
}

async fn show_user(State(users): State<Users>, Path(id): Path<String>) -> Result<Json<User>, ApiError> {
    let found = match id.parse() {
        Ok(id) => users.find(id).await,
        Err(_) => None,
    };
    found
        .map(Json)
        .ok_or_else(|| ApiError::NotFound(format!("there is no user {id}")))
}

async fn create_user(
    State(users): State<Users>,
    body: Result<Json<NewUser>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Json(new) = body?;
    let user = users.add(new).await?;
    let location = [(LOCATION, format!("/api/v1/users/{}", user.id))];
    Ok((StatusCode::CREATED, location, Json(user)))
}

async fn fail() -> ApiError {
    ApiError::Internal
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::WrongMethod(format!("{} does not take {method}", uri.path()))
}
