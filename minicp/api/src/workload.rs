//! Pure facts about workloads that the controllers, the agent and the tables share.
