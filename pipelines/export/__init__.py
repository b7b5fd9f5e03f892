"""Export of a finished run to files that others can use without it.

Reads: run.json, replicas/<k>/weights.safetensors, dataset/manifest.json, report/, calibration.json, budget.json.
Writes: outside the run directory, a file, a folder, or a repository on Hugging Face.
Doors: ``ensemble_folder.export_ensemble`` and ``graphs.export_graph``.

In reading order:

- ``ensemble_folder``: weights, recipe, report and model card in a folder, or in a repository on Hugging Face
- ``model_card``: README.md of an exported ensemble, with front matter for Hugging Face
- ``graphs``: an ensemble as one graph, ONNX or PyTorch's
"""
