"""What pairs add to a report: which pictures match, in which groups, and the matches of some pairs drawn."""
