import { openSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { openNativeEngine } from '../dist/io/native-engine.js';
import { native } from '../dist/io/native.js';
