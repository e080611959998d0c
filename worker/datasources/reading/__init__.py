"""Files of several kinds as documents: which ones there are, and what they say."""

from worker.datasources.reading.files import Skipped, document_of, is_known
from worker.datasources.reading.folders import Found, FoundFile, found_under

__all__ = ["Found", "FoundFile", "Skipped", "document_of", "found_under", "is_known"]
