mod deaf;
mod simulation;
