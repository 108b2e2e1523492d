"""boto3 lives here and nowhere else."""
