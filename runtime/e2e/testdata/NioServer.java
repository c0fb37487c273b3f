// SPDX-License-Identifier: Apache-2.0

import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;

/** One selector, one thread: answers every HTTP request with the same file and keeps connections open. */
public final class NioServer {
    private static final byte[] END = "\r\n\r\n".getBytes(StandardCharsets.US_ASCII);

    /** What is known of one connection. */
    private static final class Connection {
        final ByteBuffer in = ByteBuffer.allocate(16384);
        ByteBuffer out = ByteBuffer.allocate(0);
        int owed; // answers not begun yet
        int matched; // bytes of END seen
    }

    private final ByteBuffer answer;

    private NioServer(byte[] body) {
        byte[] head = ("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + body.length
                + "\r\nConnection: keep-alive\r\n\r\n").getBytes(StandardCharsets.US_ASCII);
        answer = ByteBuffer.allocate(head.length + body.length);
        answer.put(head).put(body).flip();
    }

    public static void main(String[] args) throws IOException {
        new NioServer(Files.readAllBytes(Path.of(args[1]))).serve(Integer.parseInt(args[0]));
    }

    private void serve(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.configureBlocking(false);
        listener.bind(new InetSocketAddress(port), 512);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (Iterator<SelectionKey> it = selector.selectedKeys().iterator(); it.hasNext();) {
                SelectionKey key = it.next();
                it.remove();
                if (key.isAcceptable()) {
                    accept(listener, selector);
                } else {
                    handle(key);
                }
            }
        }
    }

    private static void accept(ServerSocketChannel listener, Selector selector) throws IOException {
        for (SocketChannel peer = listener.accept(); peer != null; peer = listener.accept()) {
            peer.configureBlocking(false);
            peer.register(selector, SelectionKey.OP_READ, new Connection());
        }
    }

    private void handle(SelectionKey key) {
        SocketChannel peer = (SocketChannel) key.channel();
        Connection c = (Connection) key.attachment();
        try {
            if (key.isReadable() && !read(peer, c)) {
                peer.close();
                return;
            }
            write(peer, c);
            key.interestOps(c.out.hasRemaining() ? SelectionKey.OP_WRITE : SelectionKey.OP_READ);
        } catch (IOException gone) {
            try {
                peer.close();
            } catch (IOException ignored) {
                // it is gone either way
            }
        }
    }

    private static boolean read(SocketChannel peer, Connection c) throws IOException {
        if (peer.read(c.in) < 0) {
            return false;
        }
        c.in.flip();
        while (c.in.hasRemaining()) {
            byte b = c.in.get();
            c.matched = b == END[c.matched] ? c.matched + 1 : b == END[0] ? 1 : 0;
            if (c.matched == END.length) {
                c.matched = 0;
                c.owed++;
            }
        }
        c.in.clear();
        return true;
    }

    private void write(SocketChannel peer, Connection c) throws IOException {
        while (true) {
            if (!c.out.hasRemaining()) {
                if (c.owed == 0) {
                    return;
                }
                c.owed--;
                c.out = answer.duplicate();
            }
            if (peer.write(c.out) == 0) {
                return;
            }
        }
    }
}
