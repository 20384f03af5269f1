//! hyperd: keeps images and pods, serves the API.
