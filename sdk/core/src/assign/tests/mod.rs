//! Answers of Apache Kafka's own assignors, replayed (`tests/tools/Assignments.java`), and what holds for any input.

mod any_group;
mod recorded;
