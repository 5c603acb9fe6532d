/**
 * 100,000 live windows, and the ground is gone: how long until the last of them is not valid any more, and the listener is told?
 *
 * What happens outside (a truncation, a file system that shuts down) includes the time until the library noticed; only the declared unplug is the work of invalidating alone. Each run is
 * a process of its own (invalidate-run.ts), whose listener asks every window whether it is valid.
 */
import type { InvalidateJob, InvalidateResult } from './invalidate-run.js';
import { losses } from './losses.js';
import { runModule } from './peers.js';
import { CannotRun, type Group, interleave, medianOf } from './report.js';

const windows = 100_000;

export const invalidate: Group = {
  name: 'invalidate',
  title: '100,000 live windows lose their ground',
  async run(settings) {
    const contenders = losses.map(({ name, refusal }) => ({
      name,
      own: true,
      missing: refusal(),
      run: async () => {
        const job: InvalidateJob = { loss: name, folder: settings.folder, windows };
        const { cannot, told, calling, asking } = await runModule<InvalidateResult>('invalidate-run', job);
        if (cannot !== undefined) throw new CannotRun(cannot);
        return { value: told, notes: { calling, asking } };
      },
    }));
    const section = await interleave('until the last is invalid', 'ms', contenders, settings);
    return {
      sections: [section],
      targets: ['unplug, page cache', 'unplug, direct'].map((name) => ({
        text: `${name}, to the last window`,
        measured: medianOf(section, name),
        unit: 'ms',
        atMost: 20,
      })),
    };
  },
};
