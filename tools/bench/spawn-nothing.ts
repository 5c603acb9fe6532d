/** The Node.js program that the group `spawn` forks: it ends as soon as it has begun. */
process.disconnect();
