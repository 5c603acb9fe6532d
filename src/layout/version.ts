/** The version that reports carry: that of package.json, which a bundler may leave behind (a test keeps them equal). */
export const version = '0.1.0';
