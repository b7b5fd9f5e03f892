"""The report: from predictions to tables, pages and pictures.

Reads: run.json, predictions/*.parquet, view_probabilities/*.parquet, soup/, dataset/, jobs/,
replicas/<k>/metrics.jsonl, preflight.json, teacher/teacher.json; of the run whose replicas answer, calibration.json and
budget.json. Writes: report/, answers/, calibration.json, budget.json,
out_of_distribution.json. Door: ``write.write_report``.

In reading order:

- ``write``: predictions to report.json, index.html, report.md and pictures
- ``contents``: content of report.json
- ``schema``: the fields of report.json
- ``schema_of_certainty``: its fields about how sure the answers are
- ``schema_of_spending``: its fields about what an error costs, and those of cost.json
- ``schema_of_provenance``: its fields about where it comes from
- ``fields``: types of single fields that several tables share
- ``intervals``: intervals of errors, also where all images are right, or all wrong
- ``tally``: sums over all images in bounded memory
- ``abstention``: sets of classes, and answers left to people
- ``out_of_distribution``: scores of measures that tell photographs of something else apart
- ``temperatures``: calibrated probabilities: their temperatures fitted, judged and kept
- ``spending``: error against forward passes, for every way to spend them; what the run keeps about it
- ``soups``: errors of averages of the replicas' weights
- ``columns``: the table's columns and cells as text
- ``remarks``: the headline, remarks on the table, the costs and the mistakes
- ``provenance``: date, command, processor and commit of an evaluation and of its training
- ``text``: the table for the terminal
- ``certainty``: tables on how sure the answers are, for report.md and the page
- ``tables_of_spending``: tables on what an error costs, for both
- ``markdown``: report.md
- ``markdown_tables``: tables in Markdown
- ``page``: index.html, from page.html.jinja
- ``figures``: pictures of the ensemble, its classes and its training
- ``figure_of_spending``: picture of the error against cost
- ``contact_sheet``: small pictures in rows, with true and answered classes
- ``drawing``: colours, PNG, and SVG that follows the page
- ``example_images``: the views of one image; the most confident mistakes
- ``outcomes``: which images each cell of the table got wrong, and their scores
- ``answers``: top-5 answers for images without labels
- ``numbers``: numbers of the report by stable names
- ``comparison``: two runs compared image by image
"""
