mod deaf;
mod simulation;
mod store;
