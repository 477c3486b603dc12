import { requestSpans } from '../events.ts'
import { NO_ANSWER, TOO_LATE } from './unavailable.ts'

export type GatherOptions<Item, Result> = {
  /**
   * Runs a batch before `until`, a time of performance.now(). It gives one result for each item, or the promise of one,
   * in the order of the items.
   */
  run(items: Item[], until: number): Promise<(Result | Promise<Result>)[]>
  /** Batches under way at a time. With two, one is answered while the next is with PostgreSQL. */
  maxInFlight: number
  /** Most that the items of a batch weigh together. A heavier item goes alone. */
  maxWeight: number
  /** Weight of an item; 1 if left out. */
  weigh?(item: Item): number
}

type Entry<Item, Result> = Pick<PromiseWithResolvers<Result>, 'resolve' | 'reject'> & {
  item: Item
  until: number
  spans: ReturnType<typeof requestSpans.getStore>
}

/** How often the deadlines of items are looked at. */
const TICK_MS = 100

/**
 * Makes a function that asks for one item. Items that are asked for in the same turn of the event loop, or while
 * `maxInFlight` batches are under way, go in one batch. An item that is alone goes at the end of the turn; what had to wait
 * for a batch goes a turn after that, so that those who ask again as soon as they are answered go along.
 *
 * Each item has a deadline of its own. Past it the caller gets DatabaseUnavailable: an item that waits leaves, one that
 * is under way is left to its batch.
 */
export function gather<Item, Result>({ run, maxInFlight, maxWeight, weigh = () => 1 }: GatherOptions<Item, Result>) {
  let inFlight = 0
  /** The batches whose items have not all been answered. */
  const unanswered = new Set<Entry<Item, Result>[]>()
  let waiting: Entry<Item, Result>[] = []

  // After a pause of this process the answers may lie in the sockets: they are read before anything is judged.
  setInterval(() => setImmediate(onTick), TICK_MS).unref()

  function onTick() {
    const now = performance.now()
    const isLate = ({ until }: { until: number }) => until <= now
    for (const { reject } of waiting.filter(isLate)) reject(TOO_LATE)
    waiting = waiting.filter((entry) => !isLate(entry))
    for (const { reject } of [...unanswered].flat().filter(isLate)) reject(NO_ANSWER)
  }

  /** The first items that fit in one batch. */
  function nextBatch() {
    let weight = 0
    const end = waiting.findIndex(({ item }) => {
      weight += weigh(item)
      return weight > maxWeight
    })
    return waiting.splice(0, end < 0 ? waiting.length : Math.max(end, 1))
  }

  async function send(batch: Entry<Item, Result>[]) {
    inFlight++
    unanswered.add(batch)
    const items = batch.map(({ item }) => item)
    const until = batch.reduce((latest, entry) => Math.max(latest, entry.until), 0)
    /** The results that have not come. */
    const late: Promise<void>[] = []
    try {
      // Many items may be of one request.
      const spans = [...new Set(batch.flatMap((entry) => entry.spans ?? []))]
      const results = await requestSpans.run(spans, run, items, until)
      for (const [i, result] of results.entries()) {
        if (result instanceof Promise) late.push(result.then(batch[i]?.resolve, batch[i]?.reject))
        else batch[i]?.resolve(result)
      }
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
    inFlight--
    if (waiting.length > 0) setImmediate(setImmediate, flush)
    await Promise.all(late)
    unanswered.delete(batch)
  }

  /** Runs at the end of a turn of the event loop, when every request that came with it has been read. */
  function flush() {
    while (waiting.length > 0 && inFlight < maxInFlight) void send(nextBatch())
  }

  return (item: Item, until: number): Promise<Result> =>
    new Promise((resolve, reject) => {
      const count = waiting.push({ item, until, spans: requestSpans.getStore(), resolve, reject })
      // Those that came before it have seen to that, or wait for a batch that is under way.
      if (count === 1) setImmediate(flush)
    })
}
