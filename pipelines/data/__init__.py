"""Preparation of images: from ``--data`` to shards in the run directory.

Reads: what ``--data`` names; dataset/, also that of a run whose images are compared. Writes:
dataset/{train,val}/*.parquet with a .json each, dataset/manifest.json, dataset/quarantine.jsonl,
dataset/bad_images.jsonl. Door: ``prepare.prepare``.

In reading order:

- ``prepare``: from a listing of images to shards and their manifest
- ``bad_images``: message about images that stop a preparation, and the list of all of them
- ``sources``: a reader and a listing for whatever ``--data`` names
- ``own_images``: images of an evaluation that a run was trained or fitted on
- ``file_versions``: sizes and times of files, which tell that one was replaced under its name
- ``published_data``: data sets on Hugging Face and on web servers, by name
- ``recognition``: what the names below ``--data`` are taken for, and why; or a refusal
- ``layout``: the result of a recognition
- ``class_folders``: recognition of folders of images
- ``packed_files``: recognition of Parquet files and archives
- ``split_names``: names of folders and files that stand for training, validation or test
- ``names_of_no_class``: names of folders that are parts of a data set, or kinds of files
- ``folders_in_classes``: folders in classes that seem to be splits, or copies of other classes
- ``folder_tree``: all names below a folder, without litter and run directories
- ``file_names``: names that are not UTF-8, as readable text
- ``file_endings``: which files are pictures, and which lie beside them
- ``advice``: advice on labels in names or tables, and about single files
- ``left_out``: lines about what is not part of a data set
- ``class_list``: files that name the classes
- ``text_files``: text in UTF-8 or UTF-16
- ``listing``: which images there are, in which split, of which class
- ``shards``: tasks that read, check and write shards (Ray Data)
- ``written_shards``: what is in a shard, and what was left out
- ``copies``: pictures that are in both splits or in two classes, byte for byte
- ``image_folder``: folders of images
- ``tar_archives``: untrusted tar archives, read without unpacking
- ``imagenet``: ImageNet's archives, and the classes of its validation images
- ``huggingface_parquet``: Hugging Face's Parquet files
- ``webdataset_tars``: WebDataset archives
- ``webdataset_samples``: which members of an archive are an image and its label
- ``torchvision_sets``: torchvision's data sets by name
- ``torchvision_downloads``: the mark of a download that has not ended
- ``embedded_dataset``: digits on photographs, generated
"""
