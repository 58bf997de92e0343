import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import io.confluent.parallelconsumer.RecordContext;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * The relay's job as somebody would write it with Confluent's Parallel Consumer: poll the event's job, and once it has
 * a tag, send the order's action. What is not ready, or fails, is tried again by the library.
 *
 * <p>Arguments: the brokers, the topic, Engage's URL. Prints "ready" when it has partitions.
 */
public final class Peer {
    private static final int CONCURRENCY = 32; // the library's threads: more of them cost more CPU for each action
    private static final double FIRST_RETRY_S = 1.0;
    private static final double RETRY_GROWTH = 1.6;
    private static final double MAX_RETRY_S = 60.0;
    private static final Duration TIMEOUT = Duration.ofSeconds(10);
    private static final Map<String, String> ACTIONS = Map.of(
            "order.confirmed", "ConfirmOrder",
            "order.shipped", "ConfirmShipment",
            "order.delivered", "ConfirmDelivery");

    private final ObjectMapper json = new ObjectMapper();
    private final HttpClient http =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(TIMEOUT).build();
    private final String engage;

    private Peer(String engage) {
        this.engage = engage;
    }

    public static void main(String[] arguments) {
        var consumer = new KafkaConsumer<String, byte[]>(
                Map.of(
                        "bootstrap.servers", arguments[0],
                        "group.id", "parallel-consumer",
                        "auto.offset.reset", "earliest",
                        "enable.auto.commit", "false"),
                new StringDeserializer(),
                new ByteArrayDeserializer());
        var options = ParallelConsumerOptions.<String, byte[]>builder()
                .ordering(ProcessingOrder.KEY)
                .maxConcurrency(CONCURRENCY)
                .commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
                .retryDelayProvider(Peer::retryDelay)
                .consumer(consumer)
                .build();
        var processor = ParallelStreamProcessor.createEosStreamProcessor(options);
        Runtime.getRuntime().addShutdownHook(new Thread(processor::closeDrainFirst));
        processor.subscribe(List.of(arguments[1]), new Ready());
        var peer = new Peer(arguments[2]);
        processor.poll(polled -> peer.relay(polled.getSingleConsumerRecord()));
    }

    private static Duration retryDelay(RecordContext<String, byte[]> context) {
        double seconds = FIRST_RETRY_S * Math.pow(RETRY_GROWTH, context.getNumberOfFailedAttempts() - 1);
        return Duration.ofMillis(Math.round(Math.min(seconds, MAX_RETRY_S) * 1000));
    }

    private void relay(ConsumerRecord<String, byte[]> event) {
        try {
            JsonNode order = json.readTree(event.value());
            String orders = engage + "/api/v3/orders/";
            HttpResponse<byte[]> job =
                    http.send(to(orders + "jobs/" + order.at("/engage/jobId").asText()).GET().build(), BodyHandlers.ofByteArray());
            JsonNode tag = job.statusCode() == 200 ? json.readTree(job.body()).path("versionTag") : json.nullNode();
            if (!tag.isTextual()) {
                throw new IllegalStateException("not ready: " + job.statusCode());
            }
            byte[] action = json.writeValueAsBytes(Map.of(
                    "action", ACTIONS.get(order.get("type").asText()),
                    "versionTag", tag.asText(),
                    "language", order.get("language").asText(),
                    "data", order.get("data")));
            HttpResponse<byte[]> answer = http.send(
                    to(orders + order.get("orderId").asText() + "/action").POST(BodyPublishers.ofByteArray(action)).build(),
                    BodyHandlers.ofByteArray());
            if (answer.statusCode() != 202) {
                throw new IllegalStateException("not accepted: " + answer.statusCode());
            }
        } catch (IOException | InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    private static HttpRequest.Builder to(String uri) {
        return HttpRequest.newBuilder(URI.create(uri))
                .timeout(TIMEOUT)
                .header("apikey", "benchmark")
                .header("Content-Type", "application/json")
                .header("User-Agent", "ParallelConsumerPeer/1");
    }

    private static final class Ready implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            System.out.println("ready");
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            // The library commits what is done.
        }
    }
}
