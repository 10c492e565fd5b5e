"""From the outside world to clean COCO datasets. Knows nothing of runs.

**Sources** yield images and annotation files or records; **formats** turn annotation files into one COCO dataset;
neither knows the other. So a clip in an archive or an image in a database costs no further code. `loading` joins
the two: it alone maps names in the source to names of converted images, and rotates boxes that were drawn on an
image as it was stored.

**Checks** are pure functions of a dataset, facts about its files and an action. A rule finds nothing more in its
own result and undoes nothing of the rules before it, so a second pass changes nothing. Each file is decoded once.

**Exclusions.** Whatever leaves images or boxes out returns an `Exclusion` (how many, of how many, why), and the counts
add up, of each stage and in all: a property test holds it, and `account` fails where they do not.

**Same bytes.** COCO JSON is written in a canonical form, and subsets in a fixed order.

**Secrets.** `${NAME}` in a URL is replaced when the URL is used. Errors of SDKs are reworded and not chained,
because their texts contain whole URLs. A test runs a source of every kind with a planted secret and searches every
file of the project for it.
"""
