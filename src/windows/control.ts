/**
 * A control operation whose end is a plain call: what truncate, sync, allocate, discard and evict have in common.
 */
import type { ControlArguments, RequestManager } from '../requests/request-manager.js';

/** `ended` gets what the call returned, 0 or -errno, from the completion loop. */
export function control(manager: RequestManager, command: ControlArguments, ended: (result: number) => void): void {
  manager.control(command, {
    operationEnded: (_start, _sectors, result) => ended(result),
    operationSplit: () => {},
  });
}
