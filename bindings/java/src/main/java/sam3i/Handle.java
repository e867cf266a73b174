package sam3i;

import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.LongConsumer;
import java.util.function.LongFunction;

/** A handle of the C library: many threads use it at once, and closing waits for them. */
final class Handle {
    private final ReadWriteLock lock = new ReentrantReadWriteLock();
    private final LongConsumer free;
    private final String name;
    private long address;

    Handle(long address, String name, LongConsumer free) {
        this.address = address;
        this.name = name;
        this.free = free;
    }

    <T> T use(LongFunction<T> call) {
        lock.readLock().lock();
        try {
            if (address == 0) {
                throw new IllegalStateException("this " + name + " was closed: make a new one");
            }
            return call.apply(address);
        } finally {
            lock.readLock().unlock();
        }
    }

    void close() {
        lock.writeLock().lock();
        try {
            if (address != 0) {
                free.accept(address);
                address = 0;
            }
        } finally {
            lock.writeLock().unlock();
        }
    }
}
