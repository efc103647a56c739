/**
 * A store of objects on a server for tests, whose time does not pass.
 * @module
 */
import { S3Client, type S3Timing } from "../../core/s3_client.ts";
import type { Store } from "../../core/store.ts";
import { s3Store } from "../../tasks/s3_store.ts";
import { S3Server } from "./s3_server.ts";

/** Milliseconds after which the timers run that a test lets run. */
export const IDLE_MS = 61_000;
export const RENEW_MS = 15_000;

/** Waits for nothing, and runs timers only when a test says so. */
export interface Clock extends S3Timing {
  /** How long it was to wait. */
  readonly waits: number[];
  /** Called instead of waiting. */
  onSleep: () => Promise<void>;
  /** Runs the timers of so many milliseconds. */
  run(ms: number): void;
}

/** A clock that stands still. */
export function stoppedClock(): Clock {
  const timers = new Set<{ ms: number; callback: () => void }>();
  return {
    nAttempts: 4,
    idleMs: IDLE_MS,
    waits: [],
    random: () => 0.5,
    onSleep: () => Promise.resolve(),
    async sleep(ms): Promise<void> {
      this.waits.push(ms);
      await this.onSleep();
    },
    after(ms, callback): () => void {
      const timer = { ms, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    run(ms): void {
      for (const timer of [...timers].filter((timer) => timer.ms === ms)) {
        timers.delete(timer);
        timer.callback();
      }
    },
  };
}

/** A server, and a folder `run/a b` of it in parts of 1000 bytes. */
export function startServer(): {
  server: S3Server;
  client: S3Client;
  clock: Clock;
  store: Store;
} {
  const server = new S3Server();
  const clock = stoppedClock();
  const address = server.address("run/a b");
  const client = new S3Client(address, clock);
  const store = s3Store(client, address, { partBytes: 1000 });
  return { server, client, clock, store };
}
