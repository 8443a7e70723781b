#!/usr/bin/env bash
# Adds the addresses of the project to the metadata of both packages:   bash packaging/urls.sh ADDRESS_OF_THE_REPOSITORY
# A release does this: it knows where it is built.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(cat VERSION)
for project in pyproject.toml packaging/cuda13/pyproject.toml; do
  cat >> "$project" << END

[project.urls]
Repository = "$1"
Documentation = "$1/tree/v$version/docs"
Changelog = "$1/blob/v$version/CHANGELOG.md"
Issues = "$1/issues"
END
done
