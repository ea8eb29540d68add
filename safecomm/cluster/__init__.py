"""Ray: sessions, job submission, node inspection and cleanup after a job."""
