"""The stages, where the science, Ray and MLflow meet.

Commands, one file each: train_ensemble, prepare_dataset, evaluate_ensemble, compare_runs, export_ensemble, export_onnx,
replay_to_mlflow, review. They may import every wing; nothing imports a command. ``errors`` has the errors that users
can fix. The wings are run, job, data, training, evaluation, report, export and tracking; each one's docstring is its
floor plan, and tests/test_architecture.py holds who may import whom.
"""
